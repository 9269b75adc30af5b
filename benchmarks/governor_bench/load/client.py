"""An asyncio client for ``/generate`` that times every chunk as its user sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any

from governor_workloads.served import Served
from governor_workloads.spec import Workload

from governor_bench.load.prompts import check_vocabulary
from governor_bench.load.result import RequestResult
from governor_bench.load.sender import Sender
from governor_bench.load.spec import RequestSpec

TIMEOUT_S = 600.0
FIRST_AND_LAST = 1 << 20
"""A ``stream_interval`` that no output reaches: SGLang sends the first chunk and the last."""


class LoadClient:
    """Sends requests to one server.

    Args:
        url: base URL of the server.
        on_done: called with each result as it completes (progress).
        token_ids: keep the token ids of every branch; costs time for each chunk.
        chunk_times: keep when every chunk of every branch came.
        timeout_s: after which a request has failed, in the server's time.
    """

    def __init__(
        self,
        url: str,
        on_done: Callable[[RequestResult], None] | None = None,
        *,
        token_ids: bool = False,
        chunk_times: bool = False,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._url = url
        self._on_done = on_done or (lambda result: None)
        self._token_ids = token_ids
        self._chunk_times = chunk_times
        self._timeout_s = timeout_s

    def run_open(self, specs: Sequence[RequestSpec]) -> list[RequestResult]:
        """Send every request at its arrival time; results in the order of ``specs``."""
        order = {id(spec): at for at, spec in enumerate(specs)}
        by_arrival = sorted(specs, key=lambda spec: spec.arrival_s)
        results = asyncio.run(self._run(lambda sender: _open(sender, by_arrival), None))
        return sorted(results, key=lambda result: order[id(result.spec)])

    def run_closed(
        self,
        next_spec: Callable[[], RequestSpec | None],
        concurrency: int,
        *,
        enough: int | None = None,
    ) -> list[RequestResult]:
        """Keep ``concurrency`` requests in flight until ``next_spec`` returns None.

        Args:
            enough: as for :meth:`run_workload`.
        """
        specs: Iterator[RequestSpec] = iter(_until_none(next_spec))
        return asyncio.run(
            self._run(lambda sender: _closed(sender, specs, concurrency), None, enough=enough)
        )

    def run_workload(
        self,
        workload: Workload,
        *,
        time_scale: float = 1.0,
        duration_s: float | None = None,
        stream: bool = True,
        vocabulary: int = 2000,
        enough: int | None = None,
    ) -> list[Served]:
        """Serve a workload, open or closed loop.

        Args:
            time_scale: stretches every duration on the wire - arrivals, think times, the targets
                that the server is told - and shrinks what is measured, so that results are in the
                workload's clock whatever the server's speed.
            duration_s: end of the run in the workload's clock. What is in flight then is aborted
                and comes back without a last token: it is neither met nor missed. None: all
                requests are sent and finish.
            stream: take chunks at the server's ``--stream-interval``; False asks it for the first
                and the last chunk of each branch only, which times the same at the least cost.
            vocabulary: prompts are drawn from the ids below it.
            enough: the run also ends, in the same way, once the first so many requests of the
                workload are done.

        Returns:
            Every request that was sent, in the order of sending.

        Raises:
            ValueError: an argument is out of range, or a closed loop has no users.
        """
        if not 0 < time_scale < 1e6:
            raise ValueError(f"time_scale: {time_scale:g} is not above 0; use 1 for real time")
        if duration_s is not None and not duration_s > 0:
            raise ValueError(f"duration_s: {duration_s:g} is not above 0; leave it out for all")
        if workload.arrivals == "closed" and workload.users < 1:
            raise ValueError(
                f"users: the closed workload {workload.name} has none; give at least 1"
            )
        check_vocabulary(vocabulary)
        sampling: dict[str, Any] = {} if stream else {"stream_interval": FIRST_AND_LAST}
        specs = (
            RequestSpec.of(
                workload, request, time_scale=time_scale, vocabulary=vocabulary, sampling=sampling
            )
            for request in workload.requests
        )

        def feed(sender: Sender) -> Awaitable[None]:
            if workload.arrivals == "closed":
                return _closed(sender, specs, workload.users)
            return _open(sender, specs)

        end_s = None if duration_s is None else duration_s * time_scale
        timeout_s = self._timeout_s * max(1.0, time_scale)
        results = asyncio.run(self._run(feed, end_s, timeout_s, enough))
        return [result.served(time_scale) for result in results]

    async def _run(
        self,
        feed: Callable[[Sender], Awaitable[None]],
        end_s: float | None,
        timeout_s: float | None = None,
        enough: int | None = None,
    ) -> list[RequestResult]:
        awaited = set(range(enough)) if enough else {-1}
        done = asyncio.Event()

        def on_done(result: RequestResult) -> None:
            self._on_done(result)
            awaited.discard(result.spec.index)
            if not awaited:
                done.set()

        async with Sender.open(
            self._url,
            token_ids=self._token_ids,
            chunk_times=self._chunk_times,
            timeout_s=timeout_s or self._timeout_s,
            on_done=on_done,
        ) as sender:
            feeding = asyncio.ensure_future(feed(sender))
            waiting = asyncio.ensure_future(done.wait())
            await asyncio.wait(
                {feeding, waiting}, timeout=end_s, return_when=asyncio.FIRST_COMPLETED
            )
            waiting.cancel()
            if not feeding.done():
                feeding.cancel()
                await asyncio.wait({feeding})
                await sender.cut_off()
            if not feeding.cancelled():
                feeding.result()
            return sender.results


async def _open(sender: Sender, specs: Iterable[RequestSpec]) -> None:
    """Send each at its arrival time. Each prompt is made ahead of its time, not all at once."""
    async with asyncio.TaskGroup() as group:
        for spec in specs:
            await asyncio.sleep(max(0.0, spec.arrival_s - sender.now_s()))
            group.create_task(sender.send(spec))


async def _closed(sender: Sender, specs: Iterator[RequestSpec], users: int) -> None:
    """Each user thinks, sends the next request and waits for its reply, over and over."""

    async def user() -> None:
        for spec in specs:
            await asyncio.sleep(spec.think_s)
            await sender.send(spec)

    async with asyncio.TaskGroup() as group:
        for _ in range(users):
            group.create_task(user())


def _until_none(next_spec: Callable[[], RequestSpec | None]) -> Iterator[RequestSpec]:
    while (spec := next_spec()) is not None:
        yield spec
