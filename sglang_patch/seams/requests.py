"""Reading SGLang's requests."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from governor_protos.limits import MAX_COUNT
from governor_protos.messages import RowFlag

from sglang_patch.governor import EngineGovernor
from sglang_patch.rows import RowRecord, RowTable

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req

_PINNED = RowFlag.PINNED.value
_UNBORN = RowFlag.UNBORN.value

now_s = time.perf_counter
"""The clock of SGLang's own request statistics."""


def may_park(req: Req) -> bool:
    """Whether a row may leave the batch for a step. Only facts that every rank shares.

    - A row that is being aborted completes through one more decode step.
    - Penalties and grammars keep per-batch state that advances with every step of the batch.
    """
    params = req.sampling_params
    return (
        req.to_finish is None
        and req.grammar is None
        and not params.frequency_penalty
        and not params.presence_penalty
        and params.repetition_penalty == 1.0
        and not params.min_new_tokens
        and not req.return_hidden_states
        and getattr(req, "beam_group", None) is None
    )


def record(req: Req, governor: EngineGovernor) -> RowRecord:
    """The request's record; started when it is first seen."""
    found: RowRecord | None = getattr(req, "governor_record", None)
    if found is None:
        arrival_s = getattr(req.time_stats, "scheduler_recv_time", 0.0) or now_s()
        found = governor.admit(req.rid, req.sampling_params.custom_params, arrival_s)
        req.governor_record = found
    return found


def read_table(
    reqs: Iterable[Req], in_prefill: Any, governor: EngineGovernor, *, low_is_urgent: bool
) -> RowTable:
    """Read rows for a snapshot.

    Args:
        reqs: all rows that may take part in the coming step.
        in_prefill: the request in the middle of a chunked prefill, or None; it does not decode yet.
        low_is_urgent: whether this engine takes low priority values first; in a snapshot higher is
            always more urgent.
    """
    table = RowTable()
    for req in reqs:
        if req.finished():
            continue
        output_tokens = len(req.output_ids)
        table.records.append(record(req, governor))
        table.flags.append(_UNBORN if req is in_prefill else 0 if may_park(req) else _PINNED)
        table.context_tokens.append(len(req.origin_input_ids) + output_tokens)
        table.output_tokens.append(output_tokens)
        table.max_new_tokens.append(min(req.sampling_params.max_new_tokens or 0, MAX_COUNT))
        table.priority.append(_clamped(req.priority, -1 if low_is_urgent else 1))
    return table


def _clamped(priority: int | None, sign: int) -> int:
    return 0 if priority is None else max(-MAX_COUNT, min(sign * priority, MAX_COUNT))
