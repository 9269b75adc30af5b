"""What a predictor said of each step before it learnt from it."""

from __future__ import annotations

from array import array

import numpy as np

from controller_service.learning.samples import Samples
from controller_service.predictors.base import Floats, StepLatencyPredictor, StepSample
from controller_service.predictors.wrapped import WrappedPredictor


class Recorder(WrappedPredictor):
    """Passes everything on to ``base`` and remembers each sample with its prediction."""

    def __init__(self, base: StepLatencyPredictor) -> None:
        super().__init__(base)
        self._columns = [array("d") for _ in range(6)]

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
        super().observe(sample)

    def samples(self) -> Samples:
        """Every step that was observed, in order."""
        return Samples(*(np.array(column) for column in self._columns[:5]))

    def predicted_s(self) -> Floats:
        """What was predicted for each; 0 before the base was fitted. Shape ``(n,)``."""
        return np.array(self._columns[5])
