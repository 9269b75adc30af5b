"""A governed engine in virtual time: SGLang's loop, a profile's step times, Governor's own code.

Which rows run is decided by the real engine side and the real controller side; simulated are the
device, the host's pace, the queues and the users. The overlap loop plans step t while step t-1
runs, so it learns of a row's last token one step late and runs that row once more, as SGLang does.
"""

from __future__ import annotations

from governor_profiles import StepProfile, StepVariation
from governor_protos.messages import StepKind

from governor_sim.arrivals import Arrivals
from governor_sim.batching import Batcher
from governor_sim.drafting import NO_DRAFTS, Drafter, Drafts
from governor_sim.link import VirtualLink
from governor_sim.reporting import Reporter
from governor_sim.rows import SimRow
from governor_sim.steps import RunningStep, StepSeries
from governor_sim.timing import HostTimes
from governor_sim.users import Audience
from sglang_patch.apply.speculation import DraftOrder
from sglang_patch.governor import EngineGovernor, StepOrder
from sglang_patch.steps import LaunchedStep

STOCK = StepOrder(0, ())


class SimulatedEngine:
    """One engine. Rows come in through :meth:`send`; :meth:`run` ends when nothing is left to do.

    Args:
        profile: how long steps take.
        batcher: queues and memory.
        governor: the engine side of Governor, or None for stock behaviour.
        link: the governor's link.
        host: time that the host takes.
        overlap: which of SGLang's loops.
        variation: how steps differ from what the profile says; None: not at all.
        limit_tokens: see :class:`governor_sim.reporting.Reporter`.
        drafter: drafts for its rows; None: it does not speculate.
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
        variation: StepVariation | None = None,
        limit_tokens: int = 0,
        drafter: Drafter | None = None,
    ) -> None:
        self.now_s = 0.0
        self.steps = StepSeries()
        self.host_limited_s = 0.0
        self._profile = profile
        self._variation = variation or StepVariation()
        self._batcher = batcher
        self._governor = governor
        self._link = link
        self._reporter = None if governor is None else Reporter(governor, batcher, limit_tokens)
        self._drafter = drafter
        self._host = host
        self._overlap = overlap
        self._audience: Audience | None = None
        self._arrivals = Arrivals()
        self._number = 0
        self._device_free_s = 0.0
        self._in_flight: RunningStep | None = None
        self._joining: list[SimRow] = []

    def attach(self, audience: Audience) -> None:
        self._audience = audience

    def send(self, at_s: float, rows: list[SimRow]) -> None:
        """Let ``rows`` reach the waiting queue at ``at_s``."""
        self._arrivals.push(at_s, rows)

    def run(self, until_s: float) -> None:
        """Work until ``until_s`` or until all is done."""
        while self.now_s < until_s and self._turn():
            pass

    def _turn(self) -> bool:
        """One iteration of the loop; False when nothing is left."""
        batcher = self._batcher
        batcher.waiting.extend(self._arrivals.take(self.now_s))
        busy = not batcher.idle or self._in_flight is not None or bool(self._joining)
        if not busy:
            next_s = self._arrivals.next_s
            if next_s is None:
                return False
            self.now_s = max(self.now_s, next_s)
            batcher.reset()
            return True
        governor, link = self._governor, self._link
        order = STOCK
        if governor is not None and link is not None:
            order = governor.plan(self._number + 1, self.now_s, busy=True) or STOCK
            self.now_s += link.waited_s
        launched = self._launch(order)
        before = self._in_flight
        if self._overlap:
            self._in_flight = launched
        else:
            self._in_flight, before = None, launched
        if before is not None:
            self._process(before)
        elif launched is None and not batcher.idle:
            raise RuntimeError("requests wait and nothing runs: the batching rules are at odds")
        return True

    def _launch(self, order: StepOrder) -> RunningStep | None:
        batcher = self._batcher
        drafts = NO_DRAFTS
        batcher.running.extend(self._joining)
        self._joining = []
        batcher.drop_finished()
        prefill = batcher.next_prefill(order.prefill)
        preempted: list[SimRow] = []
        parked: list[SimRow] = []
        prefill_tokens = costly_tokens = prefill_rows = 0
        if prefill is not None:
            rows = prefill.rows + prefill.decoding
            kind = StepKind.MIXED if prefill.decoding else StepKind.PREFILL
            prefill_tokens, costly_tokens = prefill.prefill_tokens, prefill.costly_tokens
            prefill_rows = len(prefill.rows)
            self._joining = [row for row in rows if row is not batcher.chunked]
        else:
            if not batcher.running:
                return None
            if order.retract:
                preempted = batcher.preempt(order.retract, self._prefill_under_way)
            rows, parked = self._decode(frozenset(order.park), len(preempted))
            kind = StepKind.DECODE
        self._number += 1
        context = sum([row.context_tokens for row in rows])
        switched_s = 0.0
        if self._drafter is not None and prefill is None:
            drafts = self._draft(self._drafter, rows, order.drafts)
            switched_s = self._drafter.switched_s(drafts)
        step_s = self._profile.step_s(
            len(rows), context, costly_tokens, drafts.verified_tokens, drafts.length
        )
        seconds = self._variation.vary(step_s + switched_s, self._number)
        planned_s = self.now_s + self._host.plan(len(rows)) + self._host.retract(len(preempted))
        start_s = max(planned_s, self._device_free_s)
        if self._in_flight is not None:
            self.host_limited_s += start_s - self._device_free_s
        end_s = self._device_free_s = start_s + seconds
        unfinished = batcher.chunked if prefill else None
        step = RunningStep(self._number, kind, rows, end_s, unfinished, drafts, prefill_rows)
        extra = 0
        if self._reporter is not None:
            extra = self._reporter.launched(
                LaunchedStep(
                    step.number,
                    kind,
                    len(rows),
                    context,
                    prefill_tokens,
                    launched_s=planned_s,
                    draft_tokens=drafts.verified_tokens,
                    draft_length=drafts.length,
                ),
                rows if prefill else [],
            )
        self.now_s = planned_s
        self.steps.add(
            end_s,
            seconds,
            rows=len(rows),
            decoding=len(rows) - prefill_rows,
            parked=len(parked),
            extra=0 if prefill else max(0, extra - len(parked)),
            prefill_tokens=prefill_tokens,
            context_tokens=context,
            drafts=drafts,
        )
        return step

    def _draft(self, drafter: Drafter, rows: list[SimRow], order: DraftOrder) -> Drafts:
        """Draft for a step that has been put together, and see what will be accepted."""
        kv = self._batcher.kv
        room = kv.reachable_tokens - self._batcher.reserved_tokens
        drafts = drafter.draft(rows, order, room)
        if drafts.length:
            kv.take_drafts(rows, drafts.held)
            # NOTE: only the device knows by now; the host learns of it with the step's results.
            for row, accepted in zip(rows, drafts.accepted, strict=True):
                row.context_tokens += accepted
        return drafts

    @property
    def _prefill_under_way(self) -> list[SimRow]:
        """Rows whose prefill, or a step beside one, has not brought its token yet."""
        step = self._in_flight
        return [] if step is None or step.kind is StepKind.DECODE else step.rows

    def _decode(self, park: frozenset[str], preempted: int) -> tuple[list[SimRow], list[SimRow]]:
        """Rows that advance and rows that sit out, of those that ``preempted`` ones have left."""
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
            batcher.relax()
        else:
            batcher.make_room()
            rows = batcher.running
        for row in rows:
            row.context_tokens += 1
        batcher.kv.take_one_each(rows)
        if self._reporter is not None:
            self._reporter.decode_planned(
                parked, rows, self.now_s, vetoed=vetoed, preempted=preempted
            )
        return list(rows), parked

    def _process(self, step: RunningStep) -> None:
        """Results of ``step`` are in: tokens leave, finished rows free their memory."""
        audience = self._audience
        if audience is None:
            raise RuntimeError("attach an audience before the engine runs")
        now_s = self.now_s = max(self.now_s, step.end_s)
        share, prefill_rows = self._batcher.kv.share, step.prefill_rows
        hand_out = audience.tokens
        drafts = step.drafts
        for index, row in enumerate(step.rows):
            if row.finished or row.retracted or row is step.unfinished:
                continue
            if index < prefill_rows:
                share(row)
            tokens = 1
            if drafts.length:
                tokens = self._verified(row, drafts, index)
            row.output_tokens += tokens
            if row.record is not None:
                row.record.note_tokens(row.output_tokens, now_s)
            for _ in range(tokens):
                hand_out(row, now_s)
            if row.output_tokens >= row.max_new_tokens:
                row.finished = True
                self._batcher.kv.finish(row)
                if self._reporter is not None:
                    self._reporter.ended(row, now_s)
                audience.row_finished(row, now_s)
        if self._governor is not None:
            self._governor.finished(step.number, now_s, sum(drafts.accepted))
        self.now_s += self._host.process(len(step.rows))

    def _verified(self, row: SimRow, drafts: Drafts, index: int) -> int:
        """Drop what was not accepted; the tokens that the step gave the row."""
        verified, accepted = drafts.verified[index], drafts.accepted[index]
        self._batcher.kv.drop_drafts(row, drafts.held[index] - accepted)
        if row.record is not None:
            row.record.note_drafts(verified, accepted)
        # The last tokens of a draft may go past what the request wanted.
        return min(1 + accepted, row.max_new_tokens - row.output_tokens)
