"""A predictor that takes models: from a folder, from an operator, from a fit in the background.

It predicts by its online line until a model is there. A model was fitted to more than the line has
seen and knows shapes that no line has; the line goes on learning beside it, and is what remains
when a model is taken back. A change of model is one assignment: a reader sees the old one or the
new one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from concurrent.futures import Future

import msgspec

from controller_service.learning.counts import LearningCounts
from controller_service.learning.drift import DriftDetector
from controller_service.learning.model import EngineKey
from controller_service.learning.refit import (
    InlineRefits,
    RefitJob,
    RefitOutcome,
    Refits,
)
from controller_service.learning.samples import Samples
from controller_service.predictors.base import LEAST_LATENCY_S, Floats, StepSample, V
from controller_service.predictors.candidate import Candidate
from controller_service.predictors.linear import FrozenLine, OnlineLinearPredictor
from controller_service.predictors.samples import RegimeBuffer
from controller_service.predictors.watch import Predicts, Watch

logger = logging.getLogger(__name__)

LINE = "linear"
"""The family that is fitted online and needs no fit in the background."""

LEAST_SAMPLES = 192
FIRST_FIT_STEPS = 512
FIT_EVERY_STEPS = 8192
"""At first whenever twice as much has been seen, then so often."""
AFTER_DRIFT_STEPS = 256
"""Steps that a changed machine is watched before a model is fitted to it."""
BUSY_FOR_S = 1.0

HOLD_OUT_EVERY = 5
HELD_OUT_DEPTH = 16
TRAIN_DEPTH = 128
SCATTER = 2654435761
"""Knuth's multiplier: holds out without falling into step with the traffic."""

REMEMBERED = 64
LARGEST_RESIDUAL = 1.5
LEAST_FACTOR = math.log(1.05)
"""A smaller change of the machine is left to the refit alone."""


class LearningHome(msgspec.Struct, frozen=True, eq=False):
    """What a learning predictor needs of the controller that it lives in."""

    engine_id: str = ""
    engine: EngineKey = EngineKey("", "", 1, "")
    graph_rows: tuple[int, ...] = ()
    refits: Refits = msgspec.field(default_factory=InlineRefits)
    counts: LearningCounts = msgspec.field(default_factory=LearningCounts)
    bad: dict[str, None] = msgspec.field(default_factory=dict)
    """Ids of models that were taken back, oldest first: not installed again unless forced."""


class NothingToRollBack(ValueError):
    """No model predicts: there is only the line."""


class LearnedPredictor:
    """See the module's docstring.

    Args:
        family: what to fit in the background; ``linear`` fits nothing there.
    """

    def __init__(self, family: str = LINE, home: LearningHome | None = None) -> None:
        self.name = family
        self.home = home or LearningHome()
        self._version = 0
        self._line = OnlineLinearPredictor()
        self._active: Predicts = self._line
        self._installed: Candidate | None = None
        self._previous: Candidate | None = None
        self._watch: Watch | None = None
        self._held_out = RegimeBuffer(depth=HELD_OUT_DEPTH)
        self._train = RegimeBuffer(depth=TRAIN_DEPTH) if family != LINE else None
        self._drift = DriftDetector() if family != LINE else None
        self._seen = 0
        self._next_fit = FIRST_FIT_STEPS
        self._not_before_s = float("-inf")
        self._fitting: Future[RefitOutcome] | None = None
        self._fit_fails = False

    @property
    def fitted(self) -> bool:
        return self._installed is not None or self._line.fitted

    @property
    def version(self) -> int:
        return self._version

    @property
    def model(self) -> Candidate | None:
        """What predicts; ``None`` for the line."""
        return self._installed

    @property
    def previous(self) -> Candidate | None:
        """What predicted before; ``None`` for the line."""
        return self._previous

    @property
    def model_id(self) -> str:
        """Of the model that predicts; empty for the line."""
        return "" if self._installed is None else self._installed.model_id

    @property
    def watched(self) -> bool:
        """Whether the model is on probation."""
        return self._watch is not None

    def predict(
        self,
        rows: V,
        context_tokens: V,
        prefill_tokens: float | V = 0.0,
        draft_tokens: float | V = 0.0,
    ) -> V:
        return self._active.predict(rows, context_tokens, prefill_tokens, draft_tokens)

    def predict_p90(
        self,
        rows: V,
        context_tokens: V,
        prefill_tokens: float | V = 0.0,
        draft_tokens: float | V = 0.0,
    ) -> V:
        return self._active.predict_p90(rows, context_tokens, prefill_tokens, draft_tokens)

    def least_rows_s(self, most_rows: int) -> Floats:
        if self._installed is None:
            return self._line.least_rows_s(most_rows)
        return self._installed.least_rows_s[: most_rows + 1]

    def coefficients(self) -> Mapping[str, float]:
        return self._active.coefficients()

    def observe(self, sample: StepSample) -> None:
        self._line.observe(sample)
        if not sample.latency_s >= LEAST_LATENCY_S or not (sample.rows or sample.prefill_tokens):
            return
        self._seen += 1
        if (self._seen * SCATTER >> 16) % HOLD_OUT_EVERY == 0:
            self._held_out.add(sample)
        elif self._train is not None:
            self._train.add(sample)
        if self._installed is not None and sample.rows and not sample.prefill_tokens:
            self._compare(sample)

    def refit_due(self, now_s: float) -> bool:
        done = self._fitting is not None and self._fitting.done()
        return done or self._line.refit_due(now_s) or self._fit_wanted(now_s)

    def refit(self, now_s: float) -> None:
        """Refit the line here; start a fit in the background, or take in what came of it."""
        if self._line.refit_due(now_s):
            self._line.refit(now_s)
            if self._installed is None:
                self._version += 1
        if self._fitting is not None and self._fitting.done():
            outcome, self._fitting = self._fitting.result(), None
            self._take_in(outcome)
        if self._fit_wanted(now_s):
            self._start_fit(now_s)

    def machine_changed(self, newer_steps: int, factor: float) -> None:
        """Steps have taken ``factor`` times as long for ``newer_steps`` observed ones."""
        self.home.counts.drifts += 1
        logger.info(
            "engine %s: steps take %.2f times as long since %d steps",
            *(self.home.engine_id, factor, newer_steps),
        )
        self._line.machine_changed(newer_steps, factor)
        self._held_out.carry_over(math.ceil(newer_steps / HOLD_OUT_EVERY), factor)
        if self._train is not None:
            self._train.carry_over(newer_steps, factor)
        if self._installed is not None:
            # What a model knows of shapes holds on a machine that is slower as a whole; a refit
            # finds out what else has changed.
            if self._previous is not None:
                self._previous = self._previous.scaled(factor)
            self._switch(self._installed.scaled(factor))
            self._watch = Watch()
        self._after_drift()

    def held_out(self) -> Samples:
        """Steps that no fit in the background has seen, by regime; a copy."""
        return Samples(*self._held_out.columns())

    def incumbent(self) -> FrozenLine | Candidate | None:
        """What a candidate has to beat, frozen; ``None`` before anything is fitted."""
        if self._installed is not None:
            return self._installed
        return self._line.frozen() if self._line.fitted else None

    def install(self, candidate: Candidate, why: str) -> None:
        """Predict by ``candidate`` from now on, on probation."""
        self._previous = self._installed
        self._switch(candidate)
        self._watch = Watch()
        self.home.counts.promotions += 1
        logger.info(
            "engine %s: predicts by %s model %s (%s)",
            *(self.home.engine_id, candidate.model.family, candidate.model_id, why),
        )

    def roll_back(self, why: str) -> Candidate:
        """Go back to what predicted before; returns the model that was taken out.

        Raises:
            NothingToRollBack: it is the line that predicts.
        """
        taken = self._installed
        if taken is None:
            raise NothingToRollBack("no model predicts, there is nothing to roll back")
        self._remember_bad(taken.model_id)
        self._switch(self._previous)
        self._previous = self._watch = None
        self.home.counts.rollbacks += 1
        logger.warning(
            "engine %s: model %s rolled back to %s: %s",
            *(self.home.engine_id, taken.model_id),
            *(self._installed.model_id if self._installed else "the online line", why),
        )
        return taken

    def _switch(self, candidate: Candidate | None) -> None:
        self._installed = candidate
        self._active = self._line if candidate is None else candidate.model
        self._version += 1
        if self._drift is not None:
            self._drift.restart()

    def _remember_bad(self, model_id: str) -> None:
        bad = self.home.bad
        bad[model_id] = None
        if len(bad) > REMEMBERED:
            del bad[next(iter(bad))]

    def _compare(self, sample: StepSample) -> None:
        before: Predicts = self._line if self._previous is None else self._previous.model
        if self._watch is not None and (self._previous is not None or self._line.fitted):
            if self._watch.add(sample, self._active, before):
                error, other = self._watch.error, self._watch.error_before
                self.roll_back(f"off by {error:.1%}, the one before would be by {other:.1%}")
                return
            if self._watch.over:
                self._watch = None
        if self._drift is not None:
            self._look_for_drift(sample, self._drift)

    def _look_for_drift(self, sample: StepSample, drift: DriftDetector) -> None:
        predicted_s = self._active.predict(
            float(sample.rows), float(sample.context_tokens), 0.0, float(sample.draft_tokens)
        )
        residual = math.log(sample.latency_s / max(predicted_s, LEAST_LATENCY_S))
        if not drift.add(min(max(residual, -LARGEST_RESIDUAL), LARGEST_RESIDUAL)):
            return
        change = drift.change()
        if abs(change.shift) >= LEAST_FACTOR:
            self.machine_changed(change.newer_steps, math.exp(change.shift))
            return
        self.home.counts.drifts += 1
        logger.info("engine %s: the model's error has drifted", self.home.engine_id)
        self._after_drift()

    def _after_drift(self) -> None:
        self._next_fit = min(self._next_fit, self._seen + AFTER_DRIFT_STEPS)
        if self._drift is not None:
            self._drift.restart()
        if self._installed is not None and self._watch is None:
            self._watch = Watch()

    def _fit_wanted(self, now_s: float) -> bool:
        return (
            self._train is not None
            and self._fitting is None
            and self._seen >= self._next_fit
            and now_s >= self._not_before_s
            and len(self._train) >= LEAST_SAMPLES
            and self._line.fitted
        )

    def _start_fit(self, now_s: float) -> None:
        incumbent = self.incumbent()
        if incumbent is None or self._train is None:
            return
        job = RefitJob(
            self.name,
            Samples(*self._train.columns()),
            self.held_out(),
            self.home.engine,
            self.home.graph_rows,
            incumbent.model if isinstance(incumbent, Candidate) else incumbent,
        )
        self._fitting = self.home.refits.start(job)
        if self._fitting is None:
            self._not_before_s = now_s + BUSY_FOR_S
            return
        self._next_fit = self._seen + min(max(self._seen, FIRST_FIT_STEPS), FIT_EVERY_STEPS)
        if self._fitting.done():
            outcome, self._fitting = self._fitting.result(), None
            self._take_in(outcome)

    def _take_in(self, outcome: RefitOutcome) -> None:
        counts = self.home.counts
        counts.refits[outcome.result] += 1
        if outcome.result == "failed":
            if not self._fit_fails:
                logger.warning("engine %s: no model: %s", self.home.engine_id, outcome.reason)
            self._fit_fails = True
            return
        self._fit_fails = False
        candidate = outcome.candidate
        if outcome.result == "promoted" and candidate and candidate.model_id not in self.home.bad:
            self.install(candidate, f"fitted in the background; {outcome.reason}")
            return
        counts.refusals["rolled_back" if outcome.result == "promoted" else "not_better"] += 1
        logger.info("engine %s: refit not taken: %s", self.home.engine_id, outcome.reason)
