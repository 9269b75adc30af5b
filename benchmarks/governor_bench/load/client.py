"""An asyncio client for ``/generate`` that times every token as its user sees it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec

from governor_bench.load.spec import RequestSpec

MAX_LINE_BYTES = 8 << 20
TIMEOUT_S = 600.0


@dataclass(slots=True)
class Branch:
    """One output of a request."""

    output_ids: list[int] = field(default_factory=list)
    finish_reason: str = ""


@dataclass(slots=True)
class RequestResult:
    """What came back for one request. Times in seconds after the start of the run."""

    spec: RequestSpec
    sent_s: float
    first_token_s: float | None = None
    last_token_s: float | None = None
    branches: list[Branch] = field(default_factory=list)
    token_times_s: list[float] = field(default_factory=list)
    """Arrival of each chunk of the first branch."""
    error: str = ""

    @property
    def output_tokens(self) -> int:
        return sum(len(branch.output_ids) for branch in self.branches)

    @property
    def finished(self) -> bool:
        return not self.error and self.last_token_s is not None

    @property
    def ttft_s(self) -> float | None:
        return None if self.first_token_s is None else self.first_token_s - self.sent_s

    @property
    def tpot_s(self) -> float:
        """(t_last - t_first) / (tokens - 1); 0 for one token."""
        if self.first_token_s is None or self.last_token_s is None or self.output_tokens < 2:
            return 0.0
        return (self.last_token_s - self.first_token_s) / (self.output_tokens - 1)


class LoadClient:
    """Sends requests to one server.

    Args:
        url: base URL of the server.
        on_done: called with each result as it completes (progress).
    """

    def __init__(self, url: str, on_done: Callable[[RequestResult], None] | None = None) -> None:
        self._url = url
        self._on_done = on_done or (lambda result: None)
        self._start_s = time.perf_counter()

    def run_open(self, specs: Sequence[RequestSpec]) -> list[RequestResult]:
        """Send every request at its arrival time; results in the order of ``specs``."""
        return asyncio.run(self._open(specs))

    def run_closed(
        self, next_spec: Callable[[], RequestSpec | None], concurrency: int
    ) -> list[RequestResult]:
        """Keep ``concurrency`` requests in flight until ``next_spec`` returns None."""
        return asyncio.run(self._closed(next_spec, concurrency))

    async def _open(self, specs: Sequence[RequestSpec]) -> list[RequestResult]:
        async with self._session() as session:
            self._start_s = time.perf_counter()
            return list(await asyncio.gather(*(self._send_at(session, spec) for spec in specs)))

    async def _closed(
        self, next_spec: Callable[[], RequestSpec | None], concurrency: int
    ) -> list[RequestResult]:
        results: list[RequestResult] = []

        async def user(session: aiohttp.ClientSession) -> None:
            while (spec := next_spec()) is not None:
                results.append(await self._send(session, spec))

        async with self._session() as session:
            self._start_s = time.perf_counter()
            await asyncio.gather(*(user(session) for _ in range(concurrency)))
        return results

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            self._url,
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            read_bufsize=MAX_LINE_BYTES,
        )

    def _now_s(self) -> float:
        return time.perf_counter() - self._start_s

    async def _send_at(self, session: aiohttp.ClientSession, spec: RequestSpec) -> RequestResult:
        await asyncio.sleep(max(0.0, spec.arrival_s - self._now_s()))
        return await self._send(session, spec)

    async def _send(self, session: aiohttp.ClientSession, spec: RequestSpec) -> RequestResult:
        rid = f"{spec.index}-{uuid.uuid4().hex[:12]}"
        result = RequestResult(spec, sent_s=self._now_s())
        result.branches = [Branch() for _ in range(spec.n)]
        abort = (
            asyncio.create_task(self._abort(session, rid, spec.abort_after_s))
            if spec.abort_after_s is not None
            else None
        )
        try:
            async with session.post("/generate", json=spec.body(rid)) as reply:
                if reply.status != 200:
                    result.error = f"HTTP {reply.status}: {(await reply.text())[:300]}"
                else:
                    async for line in reply.content:
                        self._take(line, result)
        except (TimeoutError, aiohttp.ClientError, ValueError) as error:
            result.error = f"{type(error).__name__}: {error}"
        if abort is not None:
            await abort
        self._on_done(result)
        return result

    async def _abort(self, session: aiohttp.ClientSession, rid: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        async with session.post("/abort_request", json={"rid": rid}) as reply:
            await reply.read()

    def _take(self, line: bytes, result: RequestResult) -> None:
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            return
        chunk: dict[str, Any] = msgspec.json.decode(line[6:])
        if "error" in chunk:
            result.error = str(chunk["error"])[:300]
            return
        now_s = self._now_s()
        branch = result.branches[int(chunk.get("index", 0))]
        ids = chunk["output_ids"]
        meta = chunk["meta_info"]
        if len(ids) == meta["completion_tokens"]:
            branch.output_ids = ids
        else:  # the server streams increments only
            branch.output_ids = branch.output_ids + ids
        if meta.get("finish_reason"):
            branch.finish_reason = str(meta["finish_reason"].get("type", ""))
        if result.first_token_s is None:
            result.first_token_s = now_s
        result.last_token_s = now_s
        if branch is result.branches[0]:
            result.token_times_s.append(now_s)
