"""The governor of one engine: beside rank 0's scheduler, asks the controller, keeps the bounds.

It knows no SGLang: the seams hand it rows and steps, and it hands back which rows sit a step out.
Other tensor-parallel ranks have no governor; they carry out the same :class:`StepOrder`.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
from governor_protos.columns import unpack
from governor_protos.limits import MAX_COUNT
from governor_protos.messages import (
    Decision,
    EndReason,
    Outcome,
    Role,
    RowFlag,
    Snapshot,
    StepKind,
)

from sglang_patch.apply.branches import park_as_decided, park_by_orders
from sglang_patch.apply.prefill import STOCK as STOCK_PREFILL
from sglang_patch.apply.prefill import PrefillOrder, prefill_as_decided, prefill_by_orders
from sglang_patch.apply.retraction import retract_as_decided
from sglang_patch.apply.speculation import STOCK as STOCK_DRAFTS
from sglang_patch.apply.speculation import DraftOrder, drafts_as_decided, drafts_by_orders
from sglang_patch.config import EngineConfig
from sglang_patch.deadlines import Deadlines
from sglang_patch.ends import EndLog
from sglang_patch.fallback import FallReason, Footing, Rung, find_footing
from sglang_patch.queue import NOBODY, QueuePacker, QueueTable
from sglang_patch.requests import terms
from sglang_patch.rows import Names, RowRecord, RowTable
from sglang_patch.snapshot import RowPacker
from sglang_patch.steps import LaunchedStep, StepMeter

# A plain int: asking an enum's member for its value costs most of a microsecond, at every step.
_OPPORTUNISTIC = Role.OPPORTUNISTIC.value

IDLE_POLL_S = 0.02
"""How often an idle engine looks after its connection."""

REPORT_EVERY_STEPS = 8
"""Steps of a batch about which there is nothing to decide, from one report to the next."""


class StepOrder(msgspec.Struct, frozen=True):
    """What every rank does at one step. Travels over SGLang's own broadcast, in order."""

    step: int
    park: tuple[str, ...]
    """SGLang request ids (rid) of the rows that sit the step out."""
    drafts: DraftOrder = STOCK_DRAFTS
    """How much it drafts."""
    prefill: PrefillOrder = STOCK_PREFILL
    """How much it prefills, and whose prompts first."""
    retract: tuple[str, ...] = ()
    """Rows (rid) whose KV memory is freed before it; none of them is in ``park``."""


class Link(Protocol):
    """What the governor needs of its connection: a socket's end, or a simulated one."""

    @property
    def decision(self) -> Decision | None: ...

    @property
    def is_asking(self) -> bool: ...

    def poll(self, now_s: float) -> None: ...

    def wait(self, step: int, longest_s: float) -> None: ...

    def ask(self, snapshot: Snapshot, now_s: float) -> bool: ...

    def keep_alive(self, now_s: float) -> None: ...

    def trouble(self) -> FallReason: ...

    def close(self, reason: str) -> None: ...


@dataclass(slots=True)
class Tally:
    """Counts since start-up."""

    governed_steps: int = 0
    """Steps with something to decide: an extra branch in the batch, how much to draft, how much to
    prefill."""
    outcomes: Counter[str] = field(default_factory=Counter)
    falls: Counter[str] = field(default_factory=Counter)
    parked_row_steps: int = 0
    retracted_rows: int = 0
    """Rows that gave up their memory for others."""
    vetoed_steps: int = 0
    """Steps at which parking was decided but memory or the batch did not allow it."""
    hurried_steps: int = 0
    """Steps at which nobody was parked or held, as somebody who waited was near a limit."""
    dropped_ends: int = 0
    """Ends of requests that no controller was told of, as too many waited for one."""
    ignored_fields: int = 0
    """Request fields that came unchecked and were of no use."""


class EngineGovernor:
    """Plans steps with the controller's help; see the module's docstring.

    Args:
        config: bounds and defaults.
        link: connection to the controller.
        overlap: whether the engine plans a step while the one before still runs; such an engine
            never waits for a decision.
        draft_lengths: draft lengths that the engine can be told to take, ascending; none for an
            engine that does not speculate, or whose drafts cannot be told.
        prefill: whether the engine can be told how much to prefill.
        retract: whether it can be told whose memory to free; only beside ``prefill``, without which
            nobody is told who waits.
        deadlines: what the engine ends requests for.
    """

    def __init__(
        self,
        config: EngineConfig,
        link: Link,
        *,
        overlap: bool,
        draft_lengths: tuple[int, ...] = (),
        prefill: bool = False,
        retract: bool = False,
        deadlines: Deadlines | None = None,
    ) -> None:
        self.deadlines = Deadlines() if deadlines is None else deadlines
        self._hurried = False
        """Whether somebody who waits is near a limit."""
        self._config = config
        self._link = link
        self._overlap = overlap
        self._names = Names()
        self._table = RowTable()
        self._roles: list[int] = []
        self._draft_lengths = draft_lengths
        self._packer = RowPacker(drafts=bool(draft_lengths))
        self._can_prefill = prefill
        self._can_retract = retract
        self._queue = NOBODY
        self._held_steps = 0
        """Steps in a row that were told to decode while somebody waited."""
        self._queue_packer = QueuePacker(drafts=bool(draft_lengths))
        self._meter = StepMeter()
        self._ends = EndLog()
        self._footing: Footing | None = None
        self._planned_outcome = Outcome.UNGOVERNED
        self._planned_parked = 0
        self._next_idle_poll_s = 0.0
        self.tally = Tally()

    @property
    def extra_rows(self) -> int:
        """Opportunistic rows of the batch that was last observed."""
        return self._roles.count(_OPPORTUNISTIC)

    # -- requests -------------------------------------------------------------------------------

    def admit(
        self,
        rid: str,
        custom_params: object,
        arrival_s: float,
        *,
        prompt_tokens: int,
        max_new_tokens: int,
        priority: int,
        pinned: bool,
        protected: bool = False,
    ) -> RowRecord:
        """Start a record for a request that is seen for the first time."""
        wishes = terms(custom_params)
        self.tally.ignored_fields += wishes.ignored_fields
        config = self._config
        if wishes.tpot_slo_s is None:
            wishes = wishes._replace(tpot_slo_s=config.default_tpot_slo_ms / 1e3)
        if wishes.ttft_slo_s is None and config.default_ttft_slo_ms is not None:
            wishes = wishes._replace(ttft_slo_s=config.default_ttft_slo_ms / 1e3)
        group_id, progress = self._names.group(wishes.group)
        return RowRecord(
            self._names.request_id(),
            rid,
            group_id,
            wishes,
            arrival_s,
            prompt_tokens=prompt_tokens,
            max_new_tokens=max_new_tokens,
            priority=priority,
            pinned=pinned,
            protected=protected,
            group=progress,
        )

    # -- plan(t) --------------------------------------------------------------------------------

    def plan(self, next_step: int, now_s: float, *, busy: bool) -> StepOrder | None:
        """What the coming step should do.

        Args:
            next_step: number that the step will have.
            now_s: monotonic clock.
            busy: whether there is a batch at all; an idle engine only minds its connection.
        """
        if not busy:
            self._footing = None
            if now_s >= self._next_idle_poll_s:
                self._next_idle_poll_s = now_s + IDLE_POLL_S
                self._link.keep_alive(now_s)
            return None
        self._link.poll(now_s)
        if not self._has_choices():
            self._footing = None
            return None
        if not self._overlap:
            self._link.wait(next_step, self._longest_wait_s())
        self._footing = find_footing(next_step, self._link.decision, self._link.trouble())
        drafts = self._drafts(self._footing) if self._draft_lengths else STOCK_DRAFTS
        if self._hurried:
            self._held_steps = 0
            self.tally.hurried_steps += 1
            if drafts is STOCK_DRAFTS:
                self._footing = None
                return None
            return StepOrder(next_step, (), drafts)
        park = self._rows_to_park(self._footing)
        prefill = self._bounded_prefill(self._footing) if self._can_prefill else STOCK_PREFILL
        retract = self._rows_to_retract(self._footing, park) if self._can_retract else ()
        if not park and not retract and drafts is STOCK_DRAFTS and prefill is STOCK_PREFILL:
            return None
        freed = frozenset(retract)
        rids = (self._table.records[index].rid for index in park)
        parked = tuple(rid for rid in rids if rid not in freed)
        return StepOrder(next_step, parked, drafts, prefill, retract)

    def _has_choices(self) -> bool:
        """Whether there is anything to decide about what was last observed."""
        return (
            _OPPORTUNISTIC in self._roles
            or bool(self._draft_lengths and self._roles)
            or (self._can_prefill and (bool(self._queue.records) or self._told_prefill()))
        )

    def _told_prefill(self) -> bool:
        """Whether the controller has a say in prefill: then it is asked at every step, as whoever
        comes next is prefilled by what it said before they came."""
        decision = self._link.decision
        if decision is None:
            return False
        told = (decision.prefill_tokens, *(band.prefill_tokens for band in decision.orders))
        return max(told) >= 0

    def _bounded_prefill(self, footing: Footing) -> PrefillOrder:
        prefill = self._prefill(footing)
        if prefill.tokens or not self._queue.records:
            self._held_steps = 0
        elif self._held_steps >= self._config.max_held_steps:
            self._held_steps = 0
            return STOCK_PREFILL
        else:
            self._held_steps += 1
        return prefill

    def _prefill(self, footing: Footing) -> PrefillOrder:
        decision = self._link.decision
        if decision is None or footing.rung is Rung.STOCK:
            return STOCK_PREFILL
        if footing.rung is Rung.DECISION:
            return prefill_as_decided(decision, self._queue)
        return prefill_by_orders(decision.orders, self._mandatory_rows())

    def _mandatory_rows(self) -> int:
        return len(self._roles) - self._roles.count(_OPPORTUNISTIC)

    def _drafts(self, footing: Footing) -> DraftOrder:
        decision = self._link.decision
        if decision is None or footing.rung is Rung.STOCK:
            return STOCK_DRAFTS
        if footing.rung is Rung.DECISION:
            return drafts_as_decided(decision, self._table, self._draft_lengths)
        return drafts_by_orders(decision.orders, self._mandatory_rows(), self._draft_lengths)

    def _longest_wait_s(self) -> float:
        config = self._config
        return min(config.max_wait_ms / 1e3, config.max_wait_share * self._meter.decode_step_s)

    def _rows_to_park(self, footing: Footing) -> list[int]:
        decision = self._link.decision
        limit = self._config.max_parked_steps
        if decision is None or footing.rung is Rung.STOCK:
            return []
        if footing.rung is Rung.DECISION:
            wanted = frozenset(unpack("I", decision.park))
            return park_as_decided(wanted, self._table, self._roles, limit)
        return park_by_orders(decision.orders, self._table, self._roles, limit)

    def _rows_to_retract(self, footing: Footing, park: list[int]) -> tuple[str, ...]:
        """Only as a decision for this very step says: standing orders preempt nobody."""
        decision = self._link.decision
        if decision is None or footing.rung is not Rung.DECISION:
            return ()
        return retract_as_decided(decision, self._table, frozenset(park))

    def decode_planned(
        self,
        parked: list[RowRecord],
        kept: list[RowRecord],
        now_s: float,
        *,
        vetoed: bool,
        retracted: int = 0,
    ) -> None:
        """A decode step was put together: ``parked`` rows sit it out, ``kept`` rows run, and
        ``retracted`` ones wait again."""
        for record in parked:
            record.sit_out()
        for record in kept:
            record.advance(now_s)
        footing = self._footing
        self._planned_parked = len(parked)
        self._planned_outcome = Outcome.UNGOVERNED if footing is None else footing.outcome
        if footing is None:
            return
        self._count(footing)
        self.tally.parked_row_steps += len(parked)
        self.tally.retracted_rows += retracted
        self.tally.vetoed_steps += vetoed

    def decode_skipped(self, *, retracted: int) -> None:
        """No decode step was put together after all: nobody advances, nobody has sat out."""
        self.tally.retracted_rows += retracted

    def _count(self, footing: Footing) -> None:
        tally = self.tally
        tally.governed_steps += 1
        tally.outcomes[footing.outcome.name.lower()] += 1
        if footing.reason is not None:
            tally.falls[footing.reason.value] += 1

    # -- launch(t) and observe(t) ---------------------------------------------------------------

    def launched(self, step: LaunchedStep) -> None:
        """A step was launched."""
        if step.kind is StepKind.DECODE:
            step.outcome, step.parked_rows = self._planned_outcome, self._planned_parked
        elif self._can_prefill and self._footing is not None:
            step.outcome = self._footing.outcome
            self._count(self._footing)
        self._meter.launched(step)

    def observe(
        self,
        table: RowTable,
        *,
        for_step: int,
        now_s: float,
        kv_used_tokens: int,
        kv_total_tokens: int,
        waiting_requests: int,
        waiting_prefill_tokens: int,
        queue: QueueTable = NOBODY,
    ) -> None:
        """Take in the rows of the step to come, and who waits, and ask the controller about it.

        With nothing to decide, only some steps are reported; feedback and ends wait.
        """
        for index, record in enumerate(table.records):
            if record.parked_steps and record.must_advance(self._config.max_parked_steps):
                table.flags[index] |= RowFlag.PINNED.value
        paces = self._meter.paces
        self.deadlines.pin(table, paces, now_s)
        self._hurried = self.deadlines.is_somebody_late(
            queue, waiting_requests, len(table.records), paces, now_s
        )
        if table.records != self._table.records:  # roles hang on who is there, and nothing else
            self._roles = table.roles()
        self._table = table
        self._queue = queue
        known = itertools.chain(table.records, queue.records)
        self._names.keep_groups(record.group_id for record in known)
        if not self._link.is_asking:
            return
        if not self._has_choices() and for_step % REPORT_EVERY_STEPS:
            return
        ended = self._ends.oldest()
        snapshot = Snapshot(
            for_step=for_step,
            rows=self._packer.pack(table, self._roles, now_s),
            kv_used_tokens=kv_used_tokens,
            kv_total_tokens=kv_total_tokens,
            waiting_requests=waiting_requests,
            waiting_prefill_tokens=waiting_prefill_tokens,
            feedback=self._meter.take_feedback(),
            falls=min(sum(self.tally.falls.values()), MAX_COUNT),
            ended=ended,
            queue=self._queue_packer.pack(queue, now_s),
        )
        if self._link.ask(snapshot, now_s):
            self._ends.forget(len(ended))

    def finished(self, step_number: int, now_s: float, accepted_tokens: int = 0) -> None:
        """A step's results are in; its rows have taken note of their tokens and drafts.

        Args:
            accepted_tokens: draft tokens that were accepted, summed over the rows.
        """
        self._meter.finished(step_number, now_s, accepted_tokens)

    def ended(
        self,
        record: RowRecord,
        reason: EndReason,
        now_s: float,
        *,
        output_tokens: int,
        draft_tokens: int = 0,
        accepted_tokens: int = 0,
    ) -> None:
        """A row has left for good: the next snapshot says so. Telling it twice is harmless."""
        self._ends.add(
            record,
            reason,
            now_s,
            output_tokens=output_tokens,
            draft_tokens=draft_tokens,
            accepted_tokens=accepted_tokens,
        )
        self.tally.dropped_ends = self._ends.dropped

    def close(self, reason: str) -> None:
        self._link.close(reason)
