"""How likely each request's draft tokens are to be accepted.

A request starts with what is known of everybody else and moves to its own record as that grows
(a beta prior whose mean is the recent average over all rows and whose strength says how alike
requests are): few observations are not taken for much. Counts fade, so that a request whose text
becomes easier or harder is followed. Later positions of a draft get a factor of their own, measured
against what the rows that reached them were expected to do: those are the better rows, and a plain
average by position would take that for an effect of the position.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from governor_protos.limits import MAX_DRAFT_TOKENS

from controller_service.learning.acceptance import AcceptanceModel, fit_acceptance
from controller_service.speculation.drafting import Floats
from controller_service.speculation.trees import bucket_of, node_chances

Ints = npt.NDArray[np.int64]

FIRST_MEAN, FIRST_STRENGTH = 0.6, 6.0
"""The prior before anything is known."""
ROW_HALF_LIFE = 64.0
"""Tested tokens after which a row's older record counts half."""
IDLE_HALF_LIFE_STEPS = 512.0
"""Steps without drafts after which it does."""
ALL_HALF_LIFE = 400.0
ALL_HALF_LIFE_STEPS = 6.0
"""Tested tokens, and steps of the batch at hand, whichever is more, for the average over all."""
POSITION_STRENGTH = 200.0
POSITION_HALF_LIFE = 20_000.0
ENDED_KEPT = 256
"""Rows that have left and still say how alike rows are."""
STRENGTH_EVERY = 64
LEAST_TESTED = 4.0
"""Tested tokens from which a row says something about how alike rows are."""
WEAKEST, STRONGEST = 2.0, 200.0
EDGE = 0.01
"""No chance is taken to be nearer to 0 or 1."""


class AcceptanceEstimator:
    """Follows the rows of one engine from snapshot to snapshot.

    Args:
        longest: positions of a draft.
        width: candidates per position, see :class:`~.drafting.DraftState`.
        model: a prior that was fitted to earlier requests; None: a broad one.
    """

    def __init__(self, longest: int, width: int = 1, model: AcceptanceModel | None = None) -> None:
        self._longest, self._width = longest, width
        mean = FIRST_MEAN if model is None else model.mean()
        self._strength = FIRST_STRENGTH
        if model is not None:
            self._strength = float(np.clip(model.alpha + model.beta, WEAKEST, STRONGEST))
        self._all_accepted, self._all_tested = mean * self._strength, self._strength
        self._ids = np.zeros(0, dtype=np.uint32)
        self._order = np.zeros(0, dtype=np.intp)
        self._values = np.zeros((4, 0))  # accepted and tested, faded; the same over its life
        self._told = np.zeros((3, 0), dtype=np.int64)  # output, draft and accepted tokens
        self._ended = np.zeros((2, ENDED_KEPT))
        self._ended_count = 0
        self._planned = np.zeros(0)
        self._position = np.full((2, longest), POSITION_STRENGTH)  # accepted and expected
        self._updates = 0
        self.acceptance = np.zeros(0)
        """Of the rows of the newest snapshot."""

    @property
    def mean(self) -> float:
        """The recent average over all rows."""
        return self._all_accepted / self._all_tested

    @property
    def strength(self) -> float:
        """Tested tokens that the average over all is worth to a row."""
        return self._strength

    @property
    def by_position(self) -> Floats:
        """Shape ``(longest,)``."""
        ratio: Floats = self._position[0] / np.maximum(self._position[1], EDGE)
        return ratio

    def plan(self, given: Floats | None) -> None:
        """Take note of what the rows of the newest snapshot are expected to be given by a step.

        An engine that shares a budget out leaves the nodes out that it thinks unlikely, so that
        those it verifies say too much of the others. A row's chance is then the one at which it
        would be given what it is given.

        Args:
            given: tokens, shape ``(rows,)``; None: the engine chooses nothing.
        """
        known = given is not None and len(given) == len(self._ids)
        self._planned = given - 1.0 if given is not None and known else np.zeros(len(self._ids))

    def update(
        self,
        request_id: npt.NDArray[np.uint32],
        output_tokens: npt.NDArray[np.int32],
        draft_tokens: npt.NDArray[np.int32],
        accepted_tokens: npt.NDArray[np.int32],
        length: int = -1,
        *,
        ran_planned: bool = False,
    ) -> Floats:
        """Take in the rows of a snapshot, with their totals since they came.

        Args:
            length: draft steps of the newest finished step, which tells how deep trees were; -1:
                as deep as they can be.
            ran_planned: whether a step with drafts has finished since the snapshot before.

        Returns:
            Chance that each row's first draft token is accepted, shape ``(rows,)``.
        """
        told = np.array([output_tokens, draft_tokens, accepted_tokens], dtype=np.int64)
        self._align(request_id, told)
        gave, drafted, accepted = np.maximum(told - self._told, 0)
        self._told = told
        if not ran_planned:
            self._planned = np.zeros(len(request_id))
        if np.count_nonzero(drafted) or np.count_nonzero(self._planned):
            depth = self._longest if length <= 0 else min(length, self._longest)
            self._learn(gave, drafted, np.minimum(accepted, drafted), depth)
        else:
            self._values[:2] *= 0.5 ** (1.0 / IDLE_HALF_LIFE_STEPS)
        own_accepted, own_tested = self._values[:2]
        prior = self._strength
        chance = (own_accepted + prior * self.mean) / (own_tested + prior)
        self.acceptance = np.clip(chance, EDGE, 1.0 - EDGE)
        self._updates += 1
        return self.acceptance

    def _learn(self, gave: Ints, drafted: Ints, accepted: Ints, depth: int) -> None:
        # Every step gives a row one token and those that were accepted.
        steps = np.maximum(gave - accepted, 1)
        is_planned = (self._planned > 0) & (gave > 0)
        rows = (drafted > 0) | is_planned
        if self._width == 1:
            failed = np.where(accepted < drafted, np.minimum(steps, drafted - accepted), 0)
            tested = (accepted + failed).astype(np.float64)
            if not is_planned.any():
                self._learn_positions(accepted, drafted, rows & (steps == 1))
        else:
            tested = self._tested_in_trees(drafted, steps, depth)
        if is_planned.any():
            tested = np.where(is_planned, steps * self._planned / self.acceptance, tested)
        tested *= rows
        values = self._values
        idle = 0.5 ** (1.0 / IDLE_HALF_LIFE_STEPS)
        values[:2] *= np.where(rows, 0.5 ** (tested / ROW_HALF_LIFE), idle)
        values[0] += accepted
        values[1] += tested
        values[2] += accepted
        values[3] += tested
        new = float(tested.sum())
        fade = 0.5 ** (new / max(ALL_HALF_LIFE, ALL_HALF_LIFE_STEPS * new))
        self._all_accepted = self._all_accepted * fade + float(accepted.sum())
        self._all_tested = self._all_tested * fade + new

    def _learn_positions(self, accepted: Ints, drafted: Ints, rows: npt.NDArray[np.bool_]) -> None:
        reached = np.minimum(accepted + 1, drafted)[rows]
        if len(self.acceptance) != len(rows) or not reached.size:
            return
        size = self._longest + 1
        last = np.minimum(reached, self._longest)
        expected = np.bincount(last, self.acceptance[rows], size)[::-1].cumsum()[::-1][1:]
        took = np.minimum(accepted[rows], self._longest)
        passed = np.bincount(took, minlength=size)[::-1].cumsum()[::-1][1:]
        fade = 0.5 ** (reached.sum() / POSITION_HALF_LIFE)
        self._position -= (1.0 - fade) * (self._position - POSITION_STRENGTH)
        self._position[0] += passed
        self._position[1] += expected * self.by_position

    def _tested_in_trees(self, drafted: Ints, steps: Ints, depth: int) -> Floats:
        """How many choices verification went through is not told, only how far it came; in
        expectation, at the chance that is assumed, it is the accepted ones over that chance."""
        nodes = int(min(drafted.max(), MAX_DRAFT_TOKENS))
        gains = node_chances(self._width, depth, max(1, nodes)).cumsum(axis=1)
        if len(self.acceptance) == len(drafted):
            chance = self.acceptance
        else:
            chance = np.full(len(drafted), self.mean)
        each = np.clip(drafted // steps, 1, nodes) - 1
        bucket = bucket_of(chance)
        tested: Floats = steps * gains[bucket, each] / ((bucket + 0.5) / gains.shape[0])
        return tested

    def _align(self, request_id: npt.NDArray[np.uint32], told: Ints) -> None:
        """Bring what is known of rows into the order of a new snapshot."""
        if np.array_equal(request_id, self._ids):
            return
        values = np.zeros((4, len(request_id)))
        before = told.copy()  # what a new row brings along is no observation
        chance = np.full(len(request_id), self.mean)
        planned = np.zeros(len(request_id))
        if self._ids.size:
            place = self._order[
                np.minimum(self._ids[self._order].searchsorted(request_id), len(self._ids) - 1)
            ]
            known = self._ids[place] == request_id
            values[:, known] = self._values[:, place[known]]
            before[:, known] = self._told[:, place[known]]
            chance[known] = self.acceptance[place[known]]
            planned[known] = self._planned[place[known]]
            left = np.ones(len(self._ids), dtype=np.bool_)
            left[place[known]] = False
            self._remember(self._values[2:, left])
        self._ids = request_id.copy()
        self._order = self._ids.argsort(kind="stable")
        self._values, self._told, self.acceptance = values, before, chance
        self._planned = planned

    def _remember(self, lives: Floats) -> None:
        for accepted, tested in lives.T[-ENDED_KEPT:]:
            if tested >= LEAST_TESTED:
                self._ended[:, self._ended_count % ENDED_KEPT] = accepted, tested
                self._ended_count += 1

    def settle(self) -> None:
        """Work out anew, now and then, how alike rows are; off the hot path."""
        if self._updates % STRENGTH_EVERY:
            return
        lives = np.concatenate(
            [self._ended[:, : min(self._ended_count, ENDED_KEPT)], self._values[2:]], axis=1
        )
        accepted, tested = lives[:, lives[1] >= LEAST_TESTED]
        fitted = fit_acceptance(_Lives(tested, np.minimum(accepted, tested)))
        if fitted is not None:
            self._strength = float(np.clip(fitted.alpha + fitted.beta, WEAKEST, STRONGEST))


class _Lives:
    """Rows as :func:`fit_acceptance` takes them: the tested tokens are what was proposed."""

    def __init__(self, tested: Floats, accepted: Floats) -> None:
        self.draft_tokens, self.accepted_tokens = tested, accepted
        self.prompt_tokens = self.output_tokens = self.max_new_tokens = self.reason = tested
