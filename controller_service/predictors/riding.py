"""A predictor of steps that prefill as well, for those who decide about the rest of a step."""

from __future__ import annotations

from controller_service.predictors.base import StepLatencyPredictor, V
from controller_service.predictors.wrapped import WrappedPredictor


def riding(predictor: StepLatencyPredictor, prefill_tokens: float) -> StepLatencyPredictor:
    """``predictor`` where ``prefill_tokens`` ride along with every step that it is asked about."""
    return _Riding(predictor, prefill_tokens)


class _Riding(WrappedPredictor):
    def __init__(self, base: StepLatencyPredictor, riding_tokens: float) -> None:
        super().__init__(base)
        self._riding_tokens = riding_tokens

    def predict(
        self,
        rows: V,
        context_tokens: V,
        prefill_tokens: float | V = 0.0,
        draft_tokens: float | V = 0.0,
    ) -> V:
        prompt = prefill_tokens + self._riding_tokens
        return super().predict(rows, context_tokens, prompt, draft_tokens)

    def predict_p90(
        self,
        rows: V,
        context_tokens: V,
        prefill_tokens: float | V = 0.0,
        draft_tokens: float | V = 0.0,
    ) -> V:
        prompt = prefill_tokens + self._riding_tokens
        return super().predict_p90(rows, context_tokens, prompt, draft_tokens)
