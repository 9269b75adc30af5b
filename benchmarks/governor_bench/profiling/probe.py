"""One point's requests: sent together, awaited, and aborted if we are interrupted."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any

import aiohttp
import msgspec

from governor_bench.profiling.engine import ProfilingFailed

MAX_REPLY_BYTES = 64 << 20
ABORT_TIMEOUT_S = 5.0
ABORTS_AT_ONCE = 32
JSON = {"content-type": "application/json"}


class Batch(msgspec.Struct, frozen=True):
    """Requests that are sent in one POST, so that the engine gets them as nearly at once as it can.

    The load client times each request as a user of its own; here the rows have to start together.
    """

    prompts: list[list[int]]
    output_tokens: list[int]
    """Of each prompt; greedy, and no end of sequence counts."""
    dp_rank: int = 0
    rids: list[str] = msgspec.field(default_factory=list)

    @classmethod
    def of(cls, prompts: Sequence[list[int]], output_tokens: Sequence[int], dp_rank: int) -> Batch:
        run = uuid.uuid4().hex[:12]
        rids = [f"governor-profile-{run}-{index}" for index in range(len(prompts))]
        return cls(list(prompts), list(output_tokens), dp_rank, rids)

    def body(self) -> bytes:
        """The JSON body for ``/generate``."""
        sampling = [
            {"temperature": 0, "max_new_tokens": tokens, "ignore_eos": True}
            for tokens in self.output_tokens
        ]
        fields: dict[str, Any] = {
            "rid": self.rids,
            "input_ids": self.prompts,
            "sampling_params": sampling,
            "stream": False,
        }
        if self.dp_rank:
            fields["routed_dp_rank"] = self.dp_rank
        return msgspec.json.encode(fields)


async def send(session: aiohttp.ClientSession, batch: Batch) -> None:
    """Send a batch and wait for its end; a batch that is cancelled is aborted on the engine.

    Raises:
        ProfilingFailed: the engine refused it, or did not answer in time.
    """
    try:
        async with session.post("/generate", data=batch.body(), headers=JSON) as reply:
            if reply.status != 200:
                text = (await reply.content.read(500)).decode(errors="replace")
                raise ProfilingFailed(f"the engine answered HTTP {reply.status}: {text}")
            size = 0
            async for chunk in reply.content.iter_chunked(1 << 16):
                size += len(chunk)
                if size > MAX_REPLY_BYTES:
                    raise ProfilingFailed(f"the engine's reply is over {MAX_REPLY_BYTES} bytes")
    except (TimeoutError, aiohttp.ClientError) as error:
        await _to_the_end(abort(session, batch))
        raise ProfilingFailed(
            f"the engine did not answer: {type(error).__name__} {error}"
        ) from None
    except BaseException:
        await _to_the_end(abort(session, batch))
        raise


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Await ``work`` however often we are cancelled meanwhile: whoever ends a run cancels all
    tasks, and each of them cancels those that it waits for."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(task)


async def abort(session: aiohttp.ClientSession, batch: Batch) -> None:
    """Abort every request of a batch that still runs; those that have ended are left alone."""
    gate = asyncio.Semaphore(ABORTS_AT_ONCE)

    async def one(rid: str) -> None:
        timeout = aiohttp.ClientTimeout(total=ABORT_TIMEOUT_S)
        # An engine that is gone has nothing left to abort.
        with suppress(TimeoutError, aiohttp.ClientError):
            async with (
                gate,
                session.post("/abort_request", json={"rid": rid}, timeout=timeout) as reply,
            ):
                await reply.read()

    await asyncio.gather(*(one(rid) for rid in batch.rids))
