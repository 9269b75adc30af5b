"""What a step drafted, noted on its result until the result is taken in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req


class Drafted(NamedTuple):
    """What one launched decode step drafted."""

    length: int
    """Draft steps."""
    caps: dict[str, int]
    """By request id (rid): rows that could accept fewer than the others."""
    most: int = -1
    """Draft tokens that a row could accept otherwise; -1: one for each draft step, as chains do."""
    is_ragged: bool = False
    """Whether the target computed no more than that; ``caps`` then names no other step's rows."""

    def verified(self, rid: str) -> int:
        """Draft tokens of a row that could be accepted."""
        most = self._most
        return min(most, self.caps.get(rid, most))

    def computed(self, rows: int) -> int:
        """Draft tokens that the target computed for a step of so many rows."""
        spared = sum(self._most - self.verified(rid) for rid in self.caps) if self.is_ragged else 0
        return self._most * rows - spared

    @property
    def _most(self) -> int:
        return self.length if self.most < 0 else self.most


def note(result: Any, step: Drafted) -> None:
    """Note on a step's result what it drafted.

    NOTE: it must be the result. In the overlap loop the next step's order is there by the time that
    results are taken in.
    """
    result.governor_drafted = step


def drafted(result: Any) -> Drafted | None:
    """What the step with this result drafted; None unless an engine that drafts decoded in it."""
    found: Drafted | None = getattr(result, "governor_drafted", None)
    return found


def note_drafts(req: Req, record: Any, step: Drafted) -> int:
    """Take note of a row's drafts at a step that it advanced in.

    Returns:
        How many of them were accepted.
    """
    accepted: int = max(0, req.spec_num_correct_drafts - record.accepted_tokens)
    record.note_drafts(step.verified(req.rid), accepted)
    return accepted
