"""Building the snapshot that leaves the engine every step."""

from __future__ import annotations

from governor_protos.columns import pack
from governor_protos.limits import MAX_ROWS
from governor_protos.messages import Rows

from sglang_patch.rows import NEVER_S, RowRecord, RowTable


class RowPacker:
    """Packs the rows of successive steps.

    Half the columns never change for a given set of rows; while the set stays the same, which is
    most of the time, their bytes are used again.

    Args:
        drafts: whether the engine speculates; otherwise the columns about drafts stay empty.
    """

    def __init__(self, *, drafts: bool = False) -> None:
        self._drafts = drafts
        self._records: list[RowRecord] = []
        self._roles: list[int] = []
        self._unchanging = Rows()

    def pack(self, table: RowTable, roles: list[int], now_s: float) -> Rows:
        """Pack a table's first ``MAX_ROWS`` rows; the rest is simply not governed.

        Durations are relative to ``now_s``.
        """
        records = table.records[:MAX_ROWS]
        count = len(records)
        output_tokens = table.output_tokens[:count]
        context = [
            record.prompt_tokens + output
            for record, output in zip(records, output_tokens, strict=True)
        ]
        fixed = self._pack_unchanging(records, roles[:count])
        drafted = records if self._drafts else []
        return Rows(
            request_id=fixed.request_id,
            group_id=fixed.group_id,
            role=fixed.role,
            flags=pack("B", table.flags[:count]),
            context_tokens=pack("i", context),
            output_tokens=pack("i", output_tokens),
            max_new_tokens=fixed.max_new_tokens,
            priority=fixed.priority,
            parked_steps=pack("i", [record.parked_steps for record in records]),
            age_s=pack("f", [now_s - record.arrival_s for record in records]),
            since_first_token_s=pack(
                "f", _since([record.first_token_s for record in records], now_s)
            ),
            since_last_token_s=pack(
                "f", _since([record.deadline_from_s for record in records], now_s)
            ),
            ttft_slo_s=fixed.ttft_slo_s,
            tpot_slo_s=fixed.tpot_slo_s,
            group_output_tokens=pack(
                "i",
                [0 if record.group is None else record.group.output_tokens for record in records],
            ),
            draft_tokens=pack("i", [record.draft_tokens for record in drafted]),
            accepted_tokens=pack("i", [record.accepted_tokens for record in drafted]),
            expected_tokens=fixed.expected_tokens,
        )

    def _pack_unchanging(self, records: list[RowRecord], roles: list[int]) -> Rows:
        # Records compare by identity, so this costs a microsecond.
        if records != self._records or roles != self._roles:
            self._records, self._roles = records, roles
            self._unchanging = Rows(
                request_id=pack("I", [record.request_id for record in records]),
                group_id=pack("I", [record.group_id for record in records]),
                role=pack("B", roles),
                max_new_tokens=pack("i", [record.max_new_tokens for record in records]),
                priority=pack("i", [record.priority for record in records]),
                ttft_slo_s=pack("f", [record.ttft_slo_s for record in records]),
                tpot_slo_s=pack("f", [record.tpot_slo_s for record in records]),
                expected_tokens=packed_hints(records),
            )
        return self._unchanging


def packed_hints(records: list[RowRecord]) -> bytes:
    """The column of what clients expect; empty where none has said anything."""
    hints = [record.expected_tokens for record in records]
    return pack("i", hints) if any(hints) else b""


def _since(times_s: list[float], now_s: float) -> list[float]:
    return [now_s - then_s if then_s >= 0 else NEVER_S for then_s in times_s]
