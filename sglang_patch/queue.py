"""The requests that wait for their prefill, as one step sees them."""

from __future__ import annotations

from dataclasses import dataclass, field

from governor_protos.columns import pack
from governor_protos.limits import MAX_QUEUED
from governor_protos.messages import Queue

from sglang_patch.rows import RowRecord
from sglang_patch.snapshot import packed_hints


@dataclass(slots=True)
class QueueTable:
    """Waiting requests in the engine's own order, one list per fact, all of one length."""

    records: list[RowRecord] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)
    """:class:`governor_protos.messages.QueueFlag` bits."""
    missing_tokens: list[int] = field(default_factory=list)
    """Tokens that the prefill has to compute still; what the prefix cache holds is done."""
    output_tokens: list[int] = field(default_factory=list)


NOBODY = QueueTable()


class QueuePacker:
    """Packs the queues of successive steps.

    Most columns never change for a given set of requests; while the set stays the same, their bytes
    are used again.

    Args:
        drafts: whether the engine speculates; otherwise the columns about drafts stay empty.
    """

    def __init__(self, *, drafts: bool = False) -> None:
        self._drafts = drafts
        self._records: list[RowRecord] = []
        self._unchanging = Queue()

    def pack(self, table: QueueTable, now_s: float) -> Queue:
        """Pack the first ``MAX_QUEUED`` requests; the rest keeps the engine's own order."""
        records = table.records[:MAX_QUEUED]
        if not records:
            return Queue()
        count = len(records)
        fixed = self._pack_unchanging(records)
        drafted = records if self._drafts else []
        return Queue(
            request_id=fixed.request_id,
            group_id=fixed.group_id,
            flags=pack("B", table.flags[:count]),
            missing_tokens=pack("i", table.missing_tokens[:count]),
            prompt_tokens=fixed.prompt_tokens,
            output_tokens=pack("i", table.output_tokens[:count]),
            max_new_tokens=fixed.max_new_tokens,
            priority=fixed.priority,
            age_s=pack("f", [now_s - record.arrival_s for record in records]),
            ttft_slo_s=fixed.ttft_slo_s,
            tpot_slo_s=fixed.tpot_slo_s,
            draft_tokens=pack("i", [record.draft_tokens for record in drafted]),
            accepted_tokens=pack("i", [record.accepted_tokens for record in drafted]),
            expected_tokens=fixed.expected_tokens,
        )

    def _pack_unchanging(self, records: list[RowRecord]) -> Queue:
        # Records compare by identity, so this costs a microsecond.
        if records != self._records:
            self._records = records
            self._unchanging = Queue(
                request_id=pack("I", [record.request_id for record in records]),
                group_id=pack("I", [record.group_id for record in records]),
                prompt_tokens=pack("i", [record.prompt_tokens for record in records]),
                max_new_tokens=pack("i", [record.max_new_tokens for record in records]),
                priority=pack("i", [record.priority for record in records]),
                ttft_slo_s=pack("f", [record.ttft_slo_s for record in records]),
                tpot_slo_s=pack("f", [record.tpot_slo_s for record in records]),
                expected_tokens=packed_hints(records),
            )
        return self._unchanging
