"""Users in virtual time: they send requests, and note when tokens come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from governor_workloads.served import Served
from governor_workloads.spec import Workload, WorkRequest

from governor_sim.rows import SimRow, segments_of

SendLater = Callable[[float, list[SimRow]], None]


class Audience(Protocol):
    """Whoever receives tokens."""

    def tokens(self, row: SimRow, at_s: float) -> None: ...

    def row_finished(self, row: SimRow, at_s: float) -> None: ...


class Exchange:
    """One request under way: its rows, and what has come back."""

    __slots__ = ("first_token_s", "last_token_s", "output_tokens", "pending", "request", "sent_s")

    def __init__(self, request: WorkRequest, sent_s: float) -> None:
        self.request = request
        self.sent_s = sent_s
        self.first_token_s: float | None = None
        self.last_token_s: float | None = None
        self.output_tokens = 0
        self.pending = request.branches

    def served(self, *, cut_off: bool) -> Served:
        request = self.request
        return Served(
            index=request.index,
            branches=request.branches,
            ttft_slo_s=request.ttft_slo_s,
            tpot_slo_s=request.tpot_slo_s,
            sent_s=self.sent_s,
            first_token_s=self.first_token_s,
            last_token_s=None if cut_off else self.last_token_s,
            output_tokens=self.output_tokens,
        )


class Users:
    """Turns a workload into rows, and tokens into what users saw.

    Args:
        workload: open or closed loop.
        until_s: when users stop sending.
        send: hands rows to the engine at a time.
        request_s: way from a user to the engine.
        reply_s: way back.
    """

    def __init__(
        self,
        workload: Workload,
        until_s: float,
        send: SendLater,
        *,
        request_s: float,
        reply_s: float,
    ) -> None:
        self._workload = workload
        self._until_s = until_s
        self._send = send
        self._request_s = request_s
        self._reply_s = reply_s
        self._next = 0
        self._open: dict[int, Exchange] = {}
        self._done: list[Served] = []
        if workload.arrivals == "open":
            for request in workload.requests:
                if request.arrival_s < until_s:
                    self._submit(request, request.arrival_s)
        else:
            for _ in range(workload.users):
                self._think_and_submit(0.0)

    @property
    def finished(self) -> int:
        return len(self._done)

    def tokens(self, row: SimRow, at_s: float) -> None:
        """A token of ``row`` leaves the engine."""
        if row.is_warm_up:
            return
        exchange = self._open[row.request.index]
        seen_s = at_s + self._reply_s
        if exchange.first_token_s is None:
            exchange.first_token_s = seen_s
        exchange.last_token_s = seen_s
        exchange.output_tokens += 1

    def row_finished(self, row: SimRow, at_s: float) -> None:
        request = row.request
        exchange = self._open[request.index]
        if row.is_warm_up:
            self._send(at_s + self._reply_s, self._rows(request, at_s, request.branches))
            return
        exchange.pending -= 1
        if not exchange.pending:
            del self._open[request.index]
            self._done.append(exchange.served(cut_off=False))
            if self._workload.arrivals == "closed":
                self._think_and_submit(at_s + self._reply_s)

    def results(self) -> list[Served]:
        """Finished requests, then those that were cut off by the end."""
        return self._done + [item.served(cut_off=True) for item in self._open.values()]

    def _think_and_submit(self, now_s: float) -> None:
        if self._next >= len(self._workload.requests):
            return
        request = self._workload.requests[self._next]
        at_s = now_s + request.think_s
        if at_s < self._until_s:
            self._next += 1
            self._submit(request, at_s)

    def _submit(self, request: WorkRequest, at_s: float) -> None:
        self._open[request.index] = Exchange(request, at_s)
        rows = self._rows(request, at_s, 1)
        if request.branches > 1:
            rows = [
                SimRow(
                    f"{request.index}-w",
                    request,
                    rows[0].segments,
                    at_s,
                    is_warm_up=True,
                )
            ]
        self._send(at_s + self._request_s, rows)

    def _rows(self, request: WorkRequest, at_s: float, count: int) -> list[SimRow]:
        segments = segments_of(request, self._workload.prefix_block_tokens)
        return [
            SimRow(f"{request.index}-{number}", request, segments, at_s) for number in range(count)
        ]
