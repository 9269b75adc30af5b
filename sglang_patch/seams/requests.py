"""Reading SGLang's requests."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from governor_protos.limits import MAX_COUNT
from governor_protos.messages import RowFlag

from sglang_patch.governor import EngineGovernor
from sglang_patch.requests import is_protected
from sglang_patch.rows import RowRecord, RowTable
from sglang_patch.seams.time_limits import (
    has_session_limit,
    note_running_limit,
    note_session_limit,
)

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req

_PINNED = RowFlag.PINNED.value
_UNBORN = RowFlag.UNBORN.value
_PROTECTED = RowFlag.PROTECTED.value

now_s = time.perf_counter
"""The clock of SGLang's own request statistics."""


def may_park(req: Req) -> bool:
    """Whether a row may leave the batch for a step. Only facts that every rank shares.

    A row that is being aborted completes through one more decode step.
    """
    return req.to_finish is None and not _is_pinned(req)


def may_retract(req: Req) -> bool:
    """Whether a row may lose its KV memory and be prefilled again. Only facts that every rank
    shares.

    A row whose last token is under way or due frees its memory by itself.
    """
    return may_park(req) and not _keeps_memory(req) and not _is_at_its_end(req)


def _is_at_its_end(req: Req) -> bool:
    return bool(len(req.output_ids) + 1 >= req.sampling_params.max_new_tokens)


def _keeps_memory(req: Req) -> bool:
    """Whether a row may never be retracted: its client said so, or not all of it would come back.

    SGLang forgets what a retracted request has written if its prompt came as embeddings, and what
    it has collected of its experts; a session holds KV of its own.
    """
    return bool(
        is_protected(req.sampling_params.custom_params)
        or req.input_embeds is not None
        or req.multimodal_inputs is not None
        or req.session is not None
        or req.return_routed_experts
        or req.return_indexer_topk
    )


def _is_pinned(req: Req) -> bool:
    """Whether a row may never leave the batch.

    Penalties and grammars keep per-batch state that advances with every step of the batch. A
    session with a time limit may be closed before its next request comes.
    """
    params = req.sampling_params
    return bool(
        req.grammar is not None
        or params.frequency_penalty
        or params.presence_penalty
        or params.repetition_penalty != 1.0
        or params.min_new_tokens
        or req.return_hidden_states
        or getattr(req, "beam_group", None) is not None
        or has_session_limit(req)
    )


def record(req: Req, governor: EngineGovernor, *, low_is_urgent: bool) -> RowRecord:
    """The request's record; started when it is first seen in a batch.

    Args:
        low_is_urgent: whether this engine takes low priority values first; in a snapshot higher is
            always more urgent.
    """
    found: RowRecord | None = getattr(req, "governor_record", None)
    if found is None:
        params = req.sampling_params
        found = governor.admit(
            req.rid,
            params.custom_params,
            getattr(req.time_stats, "scheduler_recv_time", 0.0) or now_s(),
            prompt_tokens=len(req.origin_input_ids),
            max_new_tokens=min(params.max_new_tokens or 0, MAX_COUNT),
            priority=_clamped(req.priority, -1 if low_is_urgent else 1),
            pinned=_is_pinned(req),
            protected=_keeps_memory(req),
        )
        note_session_limit(req, found, governor.deadlines, now_s())
        req.governor_record = found
    return found


def read_table(
    reqs: Iterable[Req], in_prefill: Any, governor: EngineGovernor, *, low_is_urgent: bool
) -> RowTable:
    """Read rows for a snapshot.

    Args:
        reqs: all rows that may take part in the coming step.
        in_prefill: the request in the middle of a chunked prefill, or None; it does not decode yet.
        low_is_urgent: see :func:`record`.
    """
    table = RowTable()
    records, flags, output_tokens = table.records, table.flags, table.output_tokens
    for req in reqs:
        if req.finished():
            continue
        row = record(req, governor, low_is_urgent=low_is_urgent)
        note_running_limit(req, row, governor.deadlines)
        records.append(row)
        output_tokens.append(len(req.output_ids))
        flag = _PROTECTED if row.protected else 0
        if req is in_prefill:
            flag |= _UNBORN
        elif row.pinned or req.to_finish is not None:
            flag |= _PINNED
        flags.append(flag)
    return table


def _clamped(priority: int | None, sign: int) -> int:
    return 0 if priority is None else max(-MAX_COUNT, min(sign * priority, MAX_COUNT))
