"""What a predictor said of each step before it learnt from it."""

from __future__ import annotations

from array import array
from collections.abc import Mapping

import numpy as np

from controller_service.learning.samples import Samples
from controller_service.predictors.base import Floats, StepLatencyPredictor, StepSample, V


class Recorder:
    """Passes everything on to ``base`` and remembers each sample with its prediction."""

    def __init__(self, base: StepLatencyPredictor) -> None:
        self._base = base
        self._columns = [array("d") for _ in range(6)]

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
        return self._base.predict(rows, context_tokens, prefill_tokens, draft_tokens)

    def predict_p90(
        self,
        rows: V,
        context_tokens: V,
        prefill_tokens: float | V = 0.0,
        draft_tokens: float | V = 0.0,
    ) -> V:
        return self._base.predict_p90(rows, context_tokens, prefill_tokens, draft_tokens)

    def observe(self, sample: StepSample) -> None:
        predicted_s = 0.0
        if self._base.fitted:
            predicted_s = self._base.predict(
                float(sample.rows),
                float(sample.context_tokens),
                float(sample.prefill_tokens),
                float(sample.draft_tokens),
            )
        values = (
            sample.rows,
            sample.context_tokens,
            sample.prefill_tokens,
            sample.draft_tokens,
            sample.latency_s,
            predicted_s,
        )
        for column, value in zip(self._columns, values, strict=True):
            column.append(value)
        self._base.observe(sample)

    def refit_due(self, now_s: float) -> bool:
        return self._base.refit_due(now_s)

    def refit(self, now_s: float) -> None:
        self._base.refit(now_s)

    def coefficients(self) -> Mapping[str, float]:
        return self._base.coefficients()

    def samples(self) -> Samples:
        """Every step that was observed, in order."""
        return Samples(*(np.array(column) for column in self._columns[:5]))

    def predicted_s(self) -> Floats:
        """What was predicted for each; 0 before the base was fitted. Shape ``(n,)``."""
        return np.array(self._columns[5])
