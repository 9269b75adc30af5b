"""A predictor that is corrected by what was measured since it learnt.

Any predictor is wrong where it has not been: after a change of clocks, of neighbours, of traffic,
or because it was set up for another machine. The ratio of measured to predicted time is followed
with a memory of some twenty steps and applied to every prediction, so that a base that is off by a
factor is put right within tens of steps, without a refit. One factor for all batch sizes keeps the
promise that a step never gets shorter by adding a row.
"""

from __future__ import annotations

from collections.abc import Mapping

from controller_service.predictors.base import LEAST_LATENCY_S, StepLatencyPredictor, StepSample, V

MEMORY = 0.05
"""Weight of the newest step in the ratio, once it has been followed for twenty."""
LARGEST_RATIO = 10.0
NEWS = 0.01
"""Relative change of the ratio that makes old standing orders stale."""


class CorrectedPredictor:
    """Wraps ``base``; see the module's docstring."""

    def __init__(self, base: StepLatencyPredictor) -> None:
        self._base = base
        self._ratio = 1.0
        self._told_ratio = 1.0
        self._steps = 0
        self._changes = 0

    @property
    def name(self) -> str:
        return f"corrected-{self._base.name}"

    @property
    def fitted(self) -> bool:
        return self._base.fitted

    @property
    def version(self) -> int:
        return self._base.version + self._changes

    def predict(self, rows: V, context_tokens: V, prefill_tokens: float = 0.0) -> V:
        return self._ratio * self._base.predict(rows, context_tokens, prefill_tokens)

    def observe(self, sample: StepSample) -> None:
        if self.fitted and not sample.prefill_tokens and sample.latency_s >= LEAST_LATENCY_S:
            predicted_s = self._base.predict(float(sample.rows), float(sample.context_tokens))
            if predicted_s > 0:
                self._follow(sample.latency_s / predicted_s)
        self._base.observe(sample)

    def refit_due(self, now_s: float) -> bool:
        return self._base.refit_due(now_s)

    def refit(self, now_s: float) -> None:
        before = self._base.version
        self._base.refit(now_s)
        if self._base.version != before:
            # What was wrong before says nothing of the new fit.
            self._ratio, self._steps = 1.0, 0

    def coefficients(self) -> Mapping[str, float]:
        known = self._base.coefficients()
        return {**known, "residual_ratio": self._ratio} if known else known

    def _follow(self, ratio: float) -> None:
        ratio = min(max(ratio, 1.0 / LARGEST_RATIO), LARGEST_RATIO)
        self._steps += 1
        self._ratio += max(MEMORY, 1.0 / self._steps) * (ratio - self._ratio)
        if abs(self._ratio / self._told_ratio - 1.0) > NEWS:
            self._told_ratio = self._ratio
            self._changes += 1
