"""A predictor around another one, for those that change a little of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from controller_service.predictors.base import (
    Floats,
    KnowsRowCost,
    StepLatencyPredictor,
    StepSample,
    V,
)


class WrappedPredictor:
    """Passes everything on to ``base``; what it predicts is multiplied by ``factor``.

    Its version does not tell of a change of the factor: whoever corrects it has to find out by
    measuring.
    """

    def __init__(self, base: StepLatencyPredictor, factor: float = 1.0) -> None:
        self._base = base
        self._factor = factor

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

    def least_rows_s(self, most_rows: int) -> Floats:
        """What the base promises that rows cost; nothing, if it makes no such promise."""
        if isinstance(self._base, KnowsRowCost):
            return self._factor * self._base.least_rows_s(most_rows)
        return np.zeros(most_rows + 1)

    def observe(self, sample: StepSample) -> None:
        self._base.observe(sample)

    def refit_due(self, now_s: float) -> bool:
        return self._base.refit_due(now_s)

    def refit(self, now_s: float) -> None:
        self._base.refit(now_s)

    def coefficients(self) -> Mapping[str, float]:
        return self._base.coefficients()
