"""Building the snapshot that leaves the engine every step."""

from __future__ import annotations

from governor_protos.columns import pack
from governor_protos.limits import MAX_COUNT, MAX_FEEDBACK, MAX_ROWS
from governor_protos.messages import Rows, Snapshot, StepFeedback

from sglang_patch.rows import NEVER_S, RowTable


def build(
    table: RowTable,
    roles: list[int],
    *,
    for_step: int,
    now_s: float,
    kv_used_tokens: int,
    kv_total_tokens: int,
    waiting_requests: int,
    waiting_prefill_tokens: int,
    feedback: list[StepFeedback],
    falls: int,
) -> Snapshot:
    """The batch as the controller may see it. Durations are relative to ``now_s``."""
    return Snapshot(
        for_step=for_step,
        rows=pack_rows(table, roles, now_s),
        kv_used_tokens=kv_used_tokens,
        kv_total_tokens=kv_total_tokens,
        waiting_requests=waiting_requests,
        waiting_prefill_tokens=waiting_prefill_tokens,
        feedback=feedback[-MAX_FEEDBACK:],
        falls=min(falls, MAX_COUNT),
    )


def pack_rows(table: RowTable, roles: list[int], now_s: float) -> Rows:
    """Pack a table's first ``MAX_ROWS`` rows; the rest is simply not governed."""
    records = table.records[:MAX_ROWS]
    count = len(records)
    return Rows(
        request_id=pack("I", [record.request_id for record in records]),
        group_id=pack("I", [record.group_id for record in records]),
        role=pack("B", roles[:count]),
        flags=pack("B", table.flags[:count]),
        context_tokens=pack("i", table.context_tokens[:count]),
        output_tokens=pack("i", table.output_tokens[:count]),
        max_new_tokens=pack("i", table.max_new_tokens[:count]),
        priority=pack("i", table.priority[:count]),
        parked_steps=pack("i", [record.parked_steps for record in records]),
        age_s=pack("f", [now_s - record.arrival_s for record in records]),
        since_first_token_s=pack("f", [_since(record.first_token_s, now_s) for record in records]),
        since_last_token_s=pack("f", [_since(record.deadline_from_s, now_s) for record in records]),
        ttft_slo_s=pack("f", [record.ttft_slo_s for record in records]),
        tpot_slo_s=pack("f", [record.tpot_slo_s for record in records]),
    )


def _since(then_s: float, now_s: float) -> float:
    return now_s - then_s if then_s >= 0 else NEVER_S
