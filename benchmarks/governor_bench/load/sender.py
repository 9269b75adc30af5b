"""The requests of one run: sent, timed, and cut off when the run ends."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Self

import aiohttp
import msgspec

from governor_bench.load.result import Branch, RequestResult
from governor_bench.load.spec import RequestSpec
from governor_bench.load.stream import StreamReader

MAX_LINE_BYTES = 8 << 20
ABORT_TIMEOUT_S = 10.0
KEEP_ALIVE_S = 2.0
"""A connection is not used again after it was idle for so long. SGLang's server closes those that
were idle for five seconds, and a request that is just being sent into one is lost."""
logger = logging.getLogger(__name__)

JSON = {"content-type": "application/json"}


class Sender:
    """One run against one server. Its clock starts when it is opened."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        reader: StreamReader,
        on_done: Callable[[RequestResult], None],
    ) -> None:
        self._session = session
        self._reader = reader
        self._on_done = on_done
        self._in_flight: dict[str, RequestResult] = {}
        self.results: list[RequestResult] = []
        """Of every request that was sent, in the order of sending."""
        self._start_s = time.perf_counter()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str,
        *,
        token_ids: bool,
        chunk_times: bool,
        timeout_s: float,
        on_done: Callable[[RequestResult], None],
    ) -> AsyncIterator[Self]:
        """A sender with a connection pool of its own.

        Args:
            url: base URL of the server.
            token_ids: keep token ids, not only their number.
            chunk_times: keep when every chunk came.
            timeout_s: after which a request has failed.
            on_done: called with each result as it completes.
        """
        async with aiohttp.ClientSession(
            url,
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            read_bufsize=MAX_LINE_BYTES,
        ) as session:
            reader = StreamReader(token_ids=token_ids, chunk_times=chunk_times)
            yield cls(session, reader, on_done)

    def now_s(self) -> float:
        return time.perf_counter() - self._start_s

    async def send(self, spec: RequestSpec) -> RequestResult:
        """Send a request and read its reply to the end. Failures are in the result."""
        rid = f"{spec.index}-{uuid.uuid4().hex[:12]}"
        body = msgspec.json.encode(spec.body(rid))
        result = RequestResult(spec, self.now_s(), branches=[Branch() for _ in range(spec.n)])
        self.results.append(result)
        self._in_flight[rid] = result
        abort = (
            asyncio.create_task(self._abort_later(rid, spec.abort_after_s))
            if spec.abort_after_s is not None
            else None
        )
        try:
            async with self._session.post("/generate", data=body, headers=JSON) as reply:
                if reply.status != 200:
                    text = (await reply.content.read(2000)).decode(errors="replace")
                    result.error = f"HTTP {reply.status}: {text[:300]}"
                else:
                    async for line in reply.content:
                        self._reader.take(line, result, self.now_s())
                    self._check_complete(result)
        except (TimeoutError, aiohttp.ClientError, ValueError) as error:
            result.error = f"{type(error).__name__}: {error}"
        self._in_flight.pop(rid, None)
        if abort is not None:
            await abort
        self._on_done(result)
        return result

    async def cut_off(self) -> None:
        """Abort what was in flight when sending was cancelled; those requests are unfinished."""
        for result in self._in_flight.values():
            result.cut_off = True
        await asyncio.gather(*(self._abort(rid) for rid in list(self._in_flight)))

    @staticmethod
    def _check_complete(result: RequestResult) -> None:
        """A server that dies mid-reply may end the stream as if all were well."""
        if not result.error and not all(branch.finish_reason for branch in result.branches):
            result.error = "the reply ended before every branch had finished"

    async def _abort_later(self, rid: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        result = self._in_flight.get(rid)
        if result is not None:
            result.cut_off = True
        await self._abort(rid)

    async def _abort(self, rid: str) -> None:
        try:
            async with self._session.post(
                "/abort_request",
                json={"rid": rid},
                timeout=aiohttp.ClientTimeout(total=ABORT_TIMEOUT_S),
            ) as reply:
                await reply.read()
        except (TimeoutError, aiohttp.ClientError) as error:
            logger.warning("%s still runs on the server: its abort failed: %r", rid, error)
