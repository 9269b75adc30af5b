"""Workers that take orders about drafts: what each of them shows, whatever it drafts with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from governor_protos.limits import MAX_DRAFT_LENGTHS, MAX_DRAFT_TOKENS
from governor_protos.messages import Drafting

from sglang_patch.apply.speculation import DraftOrder
from sglang_patch.errors import ConfigurationError

if TYPE_CHECKING:
    from sglang.srt.managers.scheduler import Scheduler


class GovernedDrafts(Protocol):
    """What a worker shows of its drafts, as its ``governor_drafts``.

    Such a worker notes on the result of each decode step what the step drafted
    (:func:`..notes.note`).
    """

    order: DraftOrder
    """What the coming step is to draft."""

    @property
    def lengths(self) -> tuple[int, ...]:
        """Draft lengths that a step can take, ascending."""
        ...

    def drafting(self) -> Drafting:
        """How it drafts. Switches are timed, so ask before the first step."""
        ...


def governed_drafts(scheduler: Scheduler) -> GovernedDrafts | None:
    """None where the engine does not speculate, or takes no orders about it."""
    worker = getattr(scheduler, "draft_worker", None)
    found: GovernedDrafts | None = getattr(worker, "governor_drafts", None)
    return found


def tell(scheduler: Scheduler, order: DraftOrder) -> None:
    """Have the coming step draft as ordered."""
    drafts = governed_drafts(scheduler)
    if drafts is not None:
        drafts.order = order


def draft_lengths(scheduler: Scheduler) -> tuple[int, ...]:
    """Draft lengths that the engine was set up for, ascending; none without speculation.

    Raises:
        ConfigurationError: there are more, or longer ones, than the protocol carries.
    """
    drafts = governed_drafts(scheduler)
    if drafts is None:
        return ()
    found = drafts.lengths
    if len(found) > MAX_DRAFT_LENGTHS or found[-1] > MAX_DRAFT_TOKENS:
        raise ConfigurationError(
            f"--speculative-adaptive-config: {len(found)} lengths up to {found[-1]}; Governor "
            f"takes at most {MAX_DRAFT_LENGTHS}, up to {MAX_DRAFT_TOKENS}"
        )
    return found


def drafting(scheduler: Scheduler) -> Drafting | None:
    """How the engine drafts; None without speculation.

    Raises:
        ConfigurationError: its drafts are larger than the protocol carries.
    """
    drafts = governed_drafts(scheduler)
    if drafts is None or not draft_lengths(scheduler):
        return None
    return drafts.drafting()
