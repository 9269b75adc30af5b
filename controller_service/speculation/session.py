"""What is known of one engine's drafting, kept from snapshot to snapshot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from governor_protos.messages import DraftSource, Hello, Snapshot, StepFeedback, StepKind

from controller_service.learning.acceptance import AcceptanceModel
from controller_service.predictors.base import DraftingCost, StepLatencyPredictor
from controller_service.speculation.cost import DraftCost
from controller_service.speculation.drafting import LONGEST, DraftState, Floats, VerifiedStep
from controller_service.speculation.estimator import EDGE, AcceptanceEstimator
from controller_service.speculation.matches import Asked

KNOB = "drafts"
"""What an engine calls the actuator."""
MEASURED_MEMORY = 0.05
"""Weight of the newest step in the measured tokens under its length."""
INTERRUPTED_MEMORY = 0.02
"""Weight of the newest decode step in the share of those that prefill has followed."""
EMA_OLD = 0.75
"""TurboSpec's: a quarter of every new step."""


class DraftSession:
    """Estimates for one engine; ``None`` from :func:`draft_session` for one that has no drafts."""

    def __init__(self, hello: Hello, model: AcceptanceModel | None = None) -> None:
        drafting = hello.drafting
        if drafting is None:
            raise ValueError(
                "hello.drafting: an engine with the knob 'drafts' must say how it drafts"
            )
        self._drafting = drafting
        self.lengths = tuple(
            sorted({length for length in hello.draft_lengths if length <= LONGEST})
        )
        longest = max(1, self.lengths[-1])
        prior = None if model is None else _of_tested(model, max(1, longest // 2))
        looks_up = drafting.source == DraftSource.NGRAM
        self._estimator = AcceptanceEstimator(longest, drafting.width, prior, looks_up=looks_up)
        self._asked = Asked() if looks_up else None
        self._cost = DraftCost(self.lengths, not looks_up, is_chain=drafting.width == 1)
        self._measured = np.full(len(self.lengths), np.nan)
        self._index = {length: index for index, length in enumerate(self.lengths)}
        self._ema = self._estimator.mean
        self._last_length = -1
        self._interrupted = 0.0
        self._prefilled = False

    @property
    def mean_acceptance(self) -> float:
        return self._estimator.mean

    def state(self, snapshot: Snapshot) -> DraftState:
        """What policies are given for the step that ``snapshot`` asks about."""
        finished = self._take_in(snapshot.feedback)
        drafting, estimator = self._drafting, self._estimator
        acceptance = self._accepted_by_row(snapshot, any(step.length for step in finished))
        by_position = estimator.by_position
        first, later = acceptance, None
        if estimator.match is not None and len(estimator.match) == len(acceptance):
            first, later = estimator.match, acceptance
            by_position = np.concatenate([np.ones(1), by_position[:-1]])
        return DraftState(
            lengths=self.lengths,
            width=drafting.width,
            most_tokens=drafting.most_tokens or max(self.lengths),
            is_ragged=drafting.is_ragged,
            takes_budget=drafting.takes_budget,
            switch_s=drafting.switch_s,
            last_length=self._last_length,
            acceptance=first,
            by_position=by_position,
            cost=self._cost.known,
            batch_acceptance=self._ema,
            measured_tokens=self._measured.copy(),
            interrupted=self._interrupted,
            finished=finished,
            later_acceptance=later,
        )

    def planned(self, given: Floats | None) -> None:
        """Take note of what was decided for the newest snapshot.

        Args:
            given: tokens that each row can expect of an engine that shares a budget out, shape
                ``(rows,)``; None where it does not.
        """
        self._estimator.plan(given)

    def decided(self, step: int, capped: bytes, caps: bytes) -> None:
        """What is about to be sent: which rows may have fewer draft tokens, and how many.

        Args:
            capped: as in a ``Decision``; ``caps`` likewise.
        """
        if self._asked is not None:
            self._asked.decided(step, capped, caps)

    def settle(self, predictor: StepLatencyPredictor) -> None:
        """What can wait until the reply is on its way.

        Args:
            predictor: of steps; what it says of drafts is held against steps that had some.
        """
        self._estimator.settle()
        self._cost.refit(predictor)

    def observe(self, feedback: StepFeedback) -> None:
        """Learn the cost of drafting from a step of decode alone."""
        self._cost.observe(
            feedback.rows,
            feedback.context_tokens,
            feedback.draft_tokens,
            feedback.draft_length,
            feedback.latency_s,
        )

    @property
    def drafting(self) -> DraftingCost:
        """What draft steps are taken to cost."""
        return self._cost.known

    def _accepted_by_row(self, snapshot: Snapshot, has_drafted: bool) -> Floats:
        rows = snapshot.rows
        count = len(rows)
        # Each column may be left empty by itself.
        if len(rows.draft_tokens) != 4 * count or len(rows.accepted_tokens) != 4 * count:
            return np.full(count, self._estimator.mean)
        ids = np.frombuffer(rows.request_id, "<u4")
        output, drafted, accepted = (
            np.frombuffer(column, "<i4")
            for column in (rows.output_tokens, rows.draft_tokens, rows.accepted_tokens)
        )
        asked = None if self._asked is None else self._asked.finished(snapshot.feedback, ids)
        return self._estimator.update(
            ids, output, drafted, accepted, self._last_length, asked, ran_planned=has_drafted
        )

    def _take_in(self, feedback: Sequence[StepFeedback]) -> tuple[VerifiedStep, ...]:
        steps = []
        for item in feedback:
            if item.kind == StepKind.PREFILL:
                self._prefilled = True
            elif item.kind == StepKind.DECODE:
                self._interrupted += INTERRUPTED_MEMORY * (self._prefilled - self._interrupted)
                self._prefilled = False
            if item.kind != StepKind.DECODE or item.prefill_tokens or not item.rows:
                continue
            accepted = min(item.accepted_tokens, item.draft_tokens)
            steps.append(VerifiedStep(item.rows, item.draft_length, item.draft_tokens, accepted))
            self._last_length = item.draft_length
            self._measure(item.rows, item.draft_length, item.draft_tokens, accepted)
        return tuple(steps)

    def _measure(self, rows: int, length: int, drafts: int, accepted: int) -> None:
        index = self._index.get(length)
        if index is not None:
            tokens = 1.0 + accepted / rows
            old = self._measured[index]
            new = tokens if np.isnan(old) else old + MEASURED_MEMORY * (tokens - old)
            self._measured[index] = new
        if drafts:
            # Each row's draft ends at its first failure; how many failed is not told.
            tested = accepted + (min(rows, drafts - accepted))
            self._ema = EMA_OLD * self._ema + (1.0 - EMA_OLD) * accepted / max(tested, 1)


def _of_tested(model: AcceptanceModel, length: int) -> AcceptanceModel:
    """A fitted prior is of all draft tokens; those behind the first wrong one were never tested.

    Args:
        length: what drafts are taken to have been long; the models do not tell.
    """
    chances = np.linspace(EDGE, 1.0 - EDGE, 199)
    shares = (chances[:, None] ** np.arange(1, length + 1)).mean(axis=1)
    chance = float(np.interp(model.mean(), shares, chances))
    strength = model.alpha + model.beta
    return AcceptanceModel(chance * strength, (1.0 - chance) * strength)


def draft_session(hello: Hello, model: AcceptanceModel | None = None) -> DraftSession | None:
    """None for an engine that cannot be told how much to draft."""
    if KNOB not in hello.knobs or hello.drafting is None or not hello.draft_lengths:
        return None
    if min(hello.draft_lengths) > LONGEST:
        return None
    return DraftSession(hello, model)
