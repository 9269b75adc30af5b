"""A governed engine in virtual time: SGLang's loop, a profile's step times, Governor's own code.

Which rows run is decided by the real engine side and the real controller side; simulated are the
device, the host's pace, the queues and the users. The overlap loop plans step t while step t-1
runs, so it learns of a row's last token one step late and runs that row once more, as SGLang does.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass
from typing import Protocol

from governor_profiles import StepProfile
from governor_protos.limits import MAX_COUNT
from governor_protos.messages import RowFlag, StepKind

from governor_sim.batching import Batcher
from governor_sim.link import VirtualLink
from governor_sim.rows import SimRow
from governor_sim.steps import StepSeries
from governor_sim.timing import HostTimes
from sglang_patch.governor import EngineGovernor
from sglang_patch.requests import GROUP_KEY
from sglang_patch.rows import RowRecord, RowTable
from sglang_patch.steps import LaunchedStep

_UNBORN = RowFlag.UNBORN.value
WAITING_SEEN = 1024


class Audience(Protocol):
    """Whoever receives tokens."""

    def tokens(self, row: SimRow, at_s: float) -> None: ...

    def row_finished(self, row: SimRow, at_s: float) -> None: ...


@dataclass(slots=True)
class _Step:
    number: int
    kind: StepKind
    rows: list[SimRow]
    end_s: float
    unfinished: SimRow | None = None
    """The row whose prefill goes on in a later step."""


class SimulatedEngine:
    """One engine. Rows come in through :meth:`send`; :meth:`run` ends when nothing is left to do.

    Args:
        profile: how long steps take.
        batcher: queues and memory.
        governor: the engine side of Governor, or None for stock behaviour.
        link: the governor's link.
        host: time that the host takes.
        overlap: which of SGLang's loops.
    """

    def __init__(
        self,
        profile: StepProfile,
        batcher: Batcher,
        governor: EngineGovernor | None,
        link: VirtualLink | None,
        host: HostTimes,
        *,
        overlap: bool,
    ) -> None:
        self.now_s = 0.0
        self.steps = StepSeries()
        self.host_limited_s = 0.0
        self._profile = profile
        self._batcher = batcher
        self._governor = governor
        self._link = link
        self._host = host
        self._overlap = overlap
        self._audience: Audience | None = None
        self._arrivals: list[tuple[float, int, list[SimRow]]] = []
        self._order = itertools.count()
        self._number = 0
        self._device_free_s = 0.0
        self._in_flight: _Step | None = None
        self._joining: list[SimRow] = []

    def attach(self, audience: Audience) -> None:
        self._audience = audience

    def send(self, at_s: float, rows: list[SimRow]) -> None:
        """Let ``rows`` reach the waiting queue at ``at_s``."""
        heapq.heappush(self._arrivals, (at_s, next(self._order), rows))

    def run(self, until_s: float) -> None:
        """Work until ``until_s`` or until all is done."""
        while self.now_s < until_s and self._turn():
            pass

    def _turn(self) -> bool:
        """One iteration of the loop; False when nothing is left."""
        batcher = self._batcher
        self._take_arrivals()
        busy = not batcher.idle or self._in_flight is not None or bool(self._joining)
        if not busy:
            if not self._arrivals:
                return False
            self.now_s = max(self.now_s, self._arrivals[0][0])
            batcher.reset()
            return True
        governor, link = self._governor, self._link
        park: frozenset[str] = frozenset()
        if governor is not None and link is not None:
            order = governor.plan(self._number + 1, self.now_s, busy=True)
            self.now_s += link.waited_s
            if order is not None:
                park = frozenset(order.park)
        launched = self._launch(park)
        before = self._in_flight
        if self._overlap:
            self._in_flight = launched
        else:
            self._in_flight, before = None, launched
        if before is not None:
            self._process(before)
        return True

    def _take_arrivals(self) -> None:
        while self._arrivals and self._arrivals[0][0] <= self.now_s:
            self._batcher.waiting.extend(heapq.heappop(self._arrivals)[2])

    def _launch(self, park: frozenset[str]) -> _Step | None:
        batcher = self._batcher
        batcher.running.extend(self._joining)
        self._joining = []
        batcher.drop_finished()
        prefill = batcher.next_prefill()
        parked: list[SimRow] = []
        if prefill is not None:
            kind, rows, prefill_tokens = StepKind.PREFILL, prefill.rows, prefill.prefill_tokens
            costly_tokens = prefill.costly_tokens
            self._joining = [row for row in rows if row is not batcher.chunked]
        else:
            if not batcher.running:
                return None
            rows, parked = self._decode(park)
            kind, prefill_tokens, costly_tokens = StepKind.DECODE, 0, 0
        self._number += 1
        context = sum([row.context_tokens for row in rows])
        seconds = self._profile.step_s(len(rows), context, costly_tokens)
        planned_s = self.now_s + self._host.plan(len(rows))
        start_s = max(planned_s, self._device_free_s)
        if self._in_flight is not None:
            self.host_limited_s += start_s - self._device_free_s
        end_s = self._device_free_s = start_s + seconds
        step = _Step(self._number, kind, rows, end_s, batcher.chunked if prefill else None)
        extra = self._report(step, parked, context, prefill_tokens, planned_s)
        self.now_s = planned_s
        self.steps.add(
            end_s,
            seconds,
            rows=len(rows),
            parked=len(parked),
            extra=max(0, extra - len(parked)),
            prefill_tokens=prefill_tokens,
            context_tokens=context,
        )
        return step

    def _decode(self, park: frozenset[str]) -> tuple[list[SimRow], list[SimRow]]:
        """Rows that advance and rows that sit out."""
        batcher = self._batcher
        parked = [row for row in batcher.running if row.rid in park] if park else []
        kept = len(batcher.running) - len(parked)
        # Short of memory or of rows, the whole batch is SGLang's.
        vetoed = bool(park) and (not parked or not kept or kept > batcher.kv.reachable_tokens)
        if vetoed:
            parked = []
        if parked:
            sits_out = set(map(id, parked))
            rows = [row for row in batcher.running if id(row) not in sits_out]
        else:
            batcher.make_room()
            rows = batcher.running
        for row in rows:
            row.context_tokens += 1
        batcher.kv.take_one_each(rows)
        if self._governor is not None:
            self._governor.decode_planned(
                [row.record for row in parked if row.record is not None],
                [row.record for row in rows if row.record is not None],
                self.now_s,
                vetoed=vetoed,
            )
        return list(rows), parked

    def _report(
        self,
        step: _Step,
        parked: list[SimRow],
        context_tokens: int,
        prefill_tokens: int,
        now_s: float,
    ) -> int:
        """Tell the governor what was launched; returns the extra branches in the batch."""
        governor, batcher = self._governor, self._batcher
        if governor is None:
            return 0
        governor.launched(
            LaunchedStep(
                step.number, step.kind, len(step.rows), context_tokens, prefill_tokens, now_s
            )
        )
        in_step = step.rows if step.kind is StepKind.PREFILL else []
        table = self._table([*batcher.running, *in_step])
        governor.observe(
            table,
            for_step=step.number + 1,
            now_s=now_s,
            kv_used_tokens=min(batcher.kv.used_tokens, MAX_COUNT),
            kv_total_tokens=min(batcher.kv.capacity_tokens, MAX_COUNT),
            waiting_requests=len(batcher.waiting),
            waiting_prefill_tokens=sum(
                row.prompt_tokens for row in itertools.islice(batcher.waiting, WAITING_SEEN)
            ),
        )
        return governor.extra_rows

    def _table(self, rows: list[SimRow]) -> RowTable:
        chunked = self._batcher.chunked
        live = [row for row in rows if not row.finished]
        return RowTable(
            [row.record or self._admit(row) for row in live],
            [_UNBORN if row is chunked else 0 for row in live],
            [row.output_tokens for row in live],
        )

    def _admit(self, row: SimRow) -> RowRecord:
        if self._governor is None:
            raise RuntimeError("an engine without a governor keeps no records")
        request = row.request
        terms: dict[str, object] = {}
        if request.branches > 1:
            terms[GROUP_KEY] = f"n:{request.index}"
        if request.ttft_slo_s is not None:
            terms["ttft_slo_ms"] = 1e3 * request.ttft_slo_s
        if request.tpot_slo_s is not None:
            terms["tpot_slo_ms"] = 1e3 * request.tpot_slo_s
        row.record = self._governor.admit(
            row.rid,
            terms,
            row.sent_s,
            prompt_tokens=row.prompt_tokens,
            max_new_tokens=row.max_new_tokens,
            priority=request.priority,
            pinned=False,
        )
        return row.record

    def _process(self, step: _Step) -> None:
        """Results of ``step`` are in: tokens leave, finished rows free their memory."""
        audience = self._audience
        if audience is None:
            raise RuntimeError("attach an audience before the engine runs")
        now_s = self.now_s = max(self.now_s, step.end_s)
        for row in step.rows:
            if row.finished or row is step.unfinished:
                continue
            if step.kind is StepKind.PREFILL:
                self._batcher.kv.share(row)
            row.output_tokens += 1
            if row.record is not None:
                row.record.note_tokens(row.output_tokens, now_s)
            audience.tokens(row, now_s)
            if row.output_tokens >= row.max_new_tokens:
                row.finished = True
                self._batcher.kv.release(row)
                audience.row_finished(row, now_s)
        if self._governor is not None:
            self._governor.finished(step.number, now_s)
        self.now_s += self._host.process(len(step.rows))
