"""Reading how an SGLang request ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from governor_protos.messages import EndReason

from sglang_patch.governor import EngineGovernor
from sglang_patch.rows import RowRecord

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req

_REASONS = {"stop": EndReason.STOPPED, "length": EndReason.LENGTH, "abort": EndReason.ABORTED}

HEALTH_CHECK = "HEALTH_CHECK"
"""How ids of SGLang's own probes start (``sglang.srt.constants.HEALTH_CHECK_RID_PREFIX``)."""


def note_end(req: Req, record: RowRecord, governor: EngineGovernor, now_s: float) -> None:
    """Tell the governor of a request whose ``finished_reason`` is set.

    A health probe is not noted: nobody's requests are like it.
    """
    if _is_probe(req.rid):
        record.ended = True
        return
    reason = req.finished_reason
    kind = "" if reason is None else reason.to_json().get("type")
    # Several tokens may come at once with drafts; those behind the end are not the answer's.
    said = len(req.output_ids) if req.finished_len is None else req.finished_len
    governor.ended(
        record,
        _REASONS.get(kind, EndReason.ABORTED),
        now_s,
        output_tokens=said,
        draft_tokens=record.draft_tokens,
        accepted_tokens=record.accepted_tokens,
    )


def note_lost(record: RowRecord, governor: EngineGovernor, now_s: float) -> None:
    """Tell the governor of a request that was aborted while it waited: it was in no batch then."""
    if _is_probe(record.rid):
        return
    governor.ended(
        record,
        EndReason.ABORTED,
        now_s,
        output_tokens=record.tokens_seen,
        draft_tokens=record.draft_tokens,
        accepted_tokens=record.accepted_tokens,
    )


def _is_probe(rid: str) -> bool:
    return rid.startswith(HEALTH_CHECK)
