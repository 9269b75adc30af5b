"""A predictor of steps that prefill as well, for those who decide about the rest of a step."""

from __future__ import annotations

from collections.abc import Mapping

from controller_service.predictors.base import StepLatencyPredictor, StepSample, V


def riding(predictor: StepLatencyPredictor, prefill_tokens: float) -> StepLatencyPredictor:
    """``predictor`` where ``prefill_tokens`` ride along with every step that it is asked about."""
    return _Riding(predictor, prefill_tokens)


class _Riding:
    def __init__(self, base: StepLatencyPredictor, prefill_tokens: float) -> None:
        self._base = base
        self._prefill_tokens = prefill_tokens

    @property
    def name(self) -> str:
        return self._base.name

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
        return self._base.predict(
            rows, context_tokens, prefill_tokens + self._prefill_tokens, draft_tokens
        )

    def predict_p90(
        self,
        rows: V,
        context_tokens: V,
        prefill_tokens: float | V = 0.0,
        draft_tokens: float | V = 0.0,
    ) -> V:
        return self._base.predict_p90(
            rows, context_tokens, prefill_tokens + self._prefill_tokens, draft_tokens
        )

    def observe(self, sample: StepSample) -> None:
        self._base.observe(sample)

    def refit_due(self, now_s: float) -> bool:
        return self._base.refit_due(now_s)

    def refit(self, now_s: float) -> None:
        self._base.refit(now_s)

    def coefficients(self) -> Mapping[str, float]:
        return self._base.coefficients()
