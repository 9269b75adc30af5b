"""The engine side of Governor in a simulated engine: what the seams do in a real one."""

from __future__ import annotations

import itertools

from governor_protos.limits import MAX_COUNT
from governor_protos.messages import EndReason, RowFlag, StepKind

from governor_sim.batching import Batcher
from governor_sim.queueing import QueueReader
from governor_sim.rows import SimRow
from sglang_patch.governor import EngineGovernor
from sglang_patch.requests import EXPECTED_KEY, GROUP_KEY
from sglang_patch.rows import RowRecord, RowTable
from sglang_patch.steps import LaunchedStep

_UNBORN = RowFlag.UNBORN.value
WAITING_SEEN = 1024
"""Waiting requests whose prompts are summed up for a snapshot."""


class Reporter:
    """Tells the governor of rows and steps.

    Args:
        governor: the engine side of Governor.
        batcher: the scheduler that it watches.
        limit_tokens: output limit that every request names, if it is above what the request will
            say; 0: each names just that.
    """

    def __init__(self, governor: EngineGovernor, batcher: Batcher, limit_tokens: int = 0) -> None:
        self._governor = governor
        self._batcher = batcher
        self._limit_tokens = limit_tokens
        self._queue = QueueReader(batcher, self._record_of)

    def decode_planned(
        self,
        parked: list[SimRow],
        kept: list[SimRow],
        now_s: float,
        *,
        vetoed: bool,
        preempted: int,
    ) -> None:
        """A decode step was put together; rows that were never reported have no record yet."""
        self._governor.decode_planned(
            [row.record for row in parked if row.record is not None],
            [row.record for row in kept if row.record is not None],
            now_s,
            vetoed=vetoed,
            retracted=preempted,
        )

    def launched(self, step: LaunchedStep, apart: list[SimRow]) -> int:
        """A step was launched: ask about the next one.

        Args:
            apart: rows of the step if it prefills; they are not in the running batch yet.

        Returns:
            Extra branches in the batch.
        """
        governor, batcher = self._governor, self._batcher
        rows = [*batcher.running, *apart] if apart else batcher.running
        if step.kind is StepKind.MIXED:
            for row in rows:
                if row.record is not None:
                    row.record.advance(step.launched_s)
        if batcher.chunked is not None and batcher.chunked not in apart:
            rows = [*rows, batcher.chunked]  # it waits for a step
        governor.launched(step)
        governor.observe(
            self._table(rows),
            for_step=step.step + 1,
            now_s=step.launched_s,
            kv_used_tokens=min(batcher.kv.used_tokens, MAX_COUNT),
            kv_total_tokens=min(batcher.kv.capacity_tokens, MAX_COUNT),
            waiting_requests=len(batcher.waiting),
            waiting_prefill_tokens=sum(
                [row.prompt_tokens for row in itertools.islice(batcher.waiting, WAITING_SEEN)]
            ),
            queue=self._queue.read(),
        )
        return governor.extra_rows

    def ended(self, row: SimRow, now_s: float) -> None:
        """A row has said all that its request wanted of it."""
        record = row.record
        if record is None:
            return
        stopped = row.output_tokens < record.max_new_tokens
        self._governor.ended(
            record,
            EndReason.STOPPED if stopped else EndReason.LENGTH,
            now_s,
            output_tokens=row.output_tokens,
            draft_tokens=record.draft_tokens,
            accepted_tokens=record.accepted_tokens,
        )

    def _table(self, rows: list[SimRow]) -> RowTable:
        chunked = self._batcher.chunked
        live = [row for row in rows if not row.finished]
        return RowTable(
            [self._record_of(row) for row in live],
            [_UNBORN if row is chunked else 0 for row in live],
            [row.output_tokens for row in live],
        )

    def _record_of(self, row: SimRow) -> RowRecord:
        return row.record or self._admit(row)

    def _admit(self, row: SimRow) -> RowRecord:
        request = row.request
        terms: dict[str, object] = {}
        if request.branches > 1:
            terms[GROUP_KEY] = f"n:{request.index}"
        if request.ttft_slo_s is not None:
            terms["ttft_slo_ms"] = 1e3 * request.ttft_slo_s
        if request.tpot_slo_s is not None:
            terms["tpot_slo_ms"] = 1e3 * request.tpot_slo_s
        if request.expected_tokens:
            terms[EXPECTED_KEY] = request.expected_tokens
        row.record = self._governor.admit(
            row.rid,
            terms,
            row.sent_s,
            prompt_tokens=row.prompt_tokens,
            max_new_tokens=0 if row.is_warm_up else max(row.max_new_tokens, self._limit_tokens),
            priority=request.priority,
            pinned=False,
        )
        return row.record
