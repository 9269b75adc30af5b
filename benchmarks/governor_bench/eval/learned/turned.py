"""A predictor that becomes wrong by a factor in the middle of a run."""

from __future__ import annotations

from collections.abc import Mapping

from controller_service.predictors.base import StepLatencyPredictor, StepSample, V


class TurnedPredictor:
    """Predicts what ``base`` does; from one step on, ``factor`` times that.

    Its version does not tell of the turn: whoever corrects it has to find out by measuring.
    """

    def __init__(self, base: StepLatencyPredictor, at_step: int, factor: float) -> None:
        self._base = base
        self._at_step = at_step
        self._observed = 0
        self._factor = 1.0
        self._later_factor = factor

    @property
    def name(self) -> str:
        return f"{self._base.name}, later x {self._later_factor:g}"

    @property
    def fitted(self) -> bool:
        return self._base.fitted

    @property
    def version(self) -> int:
        return self._base.version

    def predict(
        self,
        rows: V,
        context_tokens: V,
        prefill_tokens: float | V = 0.0,
        draft_tokens: float | V = 0.0,
    ) -> V:
        return self._factor * self._base.predict(rows, context_tokens, prefill_tokens, draft_tokens)

    def predict_p90(
        self,
        rows: V,
        context_tokens: V,
        prefill_tokens: float | V = 0.0,
        draft_tokens: float | V = 0.0,
    ) -> V:
        predicted = self._base.predict_p90(rows, context_tokens, prefill_tokens, draft_tokens)
        return self._factor * predicted

    def observe(self, sample: StepSample) -> None:
        self._base.observe(sample)
        self._observed += 1
        if self._observed + 1 == self._at_step:
            self._factor = self._later_factor

    def refit_due(self, now_s: float) -> bool:
        return self._base.refit_due(now_s)

    def refit(self, now_s: float) -> None:
        self._base.refit(now_s)

    def coefficients(self) -> Mapping[str, float]:
        return self._base.coefficients()
