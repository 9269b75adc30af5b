"""What a policy is given to decide how much to draft."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from controller_service.predictors.base import DraftingCost

Floats = npt.NDArray[np.float64]

LONGEST = 64
"""Draft lengths beyond it are not considered."""


class VerifiedStep(NamedTuple):
    """One finished decode step of an engine that speculates."""

    rows: int
    length: int
    """Draft steps before it."""
    draft_tokens: int
    accepted_tokens: int


class DraftState(msgspec.Struct, frozen=True, eq=False):
    """Choices, chances and costs of drafting at one step. Row columns have shape ``(rows,)``."""

    lengths: tuple[int, ...]
    """Draft lengths that the engine can take, ascending, at most ``LONGEST``."""
    width: int
    """Candidates per position: 1 drafts chains, more draft trees."""
    most_tokens: int
    """Draft tokens that one row can have verified in one step."""
    is_ragged: bool
    """Whether a row with fewer draft tokens costs less to verify."""
    takes_budget: bool
    """Whether the engine can share out a budget over all rows by its draft's own chances."""
    switch_s: float
    """What changing the length between two steps takes."""
    last_length: int
    """Length of the newest finished step; -1 before the first."""
    acceptance: Floats
    """Chance that the first choice for a row's next token is right, by all that is known."""
    by_position: Floats
    """Factor on it at each position of a draft, shape ``(longest,)``."""
    cost: DraftingCost
    """Of draft steps; what verifying costs is for a predictor to say."""
    batch_acceptance: float
    """Moving average over steps of the share of tested draft tokens that were accepted, newest
    weighing a quarter (TurboSpec's own estimate)."""
    measured_tokens: Floats
    """Tokens per row and step under each of ``lengths`` as measured of late; NaN where never."""
    interrupted: float = 0.0
    """Share of decode steps that prefill came between them and the next, of late."""
    finished: tuple[VerifiedStep, ...] = ()
    """Steps that have finished since the snapshot before, oldest first."""
    later_acceptance: Floats | None = None
    """Where drafts are looked up, the chance that the choice for a further token is right, given
    that the one before was. None where drafts are made: it is the same."""

    @property
    def longest(self) -> int:
        return self.lengths[-1]

    def drafting_s(
        self, length: float | Floats, rows: float | Floats, draft_tokens: float | Floats
    ) -> Floats:
        """Seconds that ``length`` draft steps of a batch of ``rows`` take, of whose drafts
        ``draft_tokens`` are verified; 0 for none."""
        seconds: Floats = np.asarray(self.cost.seconds(length, rows, draft_tokens))
        return seconds

    def survival(self, length: int) -> Floats:
        """Chance that a row's first j draft tokens are all accepted, for j from 1 to ``length``.

        Returns:
            Shape ``(rows, length)``; falls along the second axis.
        """
        later = self.acceptance if self.later_acceptance is None else self.later_acceptance
        chances = np.minimum(later[:, None] * self.by_position[:length], 1.0)
        if length:
            chances[:, 0] = np.minimum(self.acceptance * self.by_position[0], 1.0)
        survival: Floats = chances.cumprod(axis=1)
        return survival
