"""A constant branch externality: TAPER's ablation of its predictor.

Every row, whatever its context, is taken to cost the same share of a step. Only the level is
learnt: the median of measured time over ``1 + share * rows``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from controller_service.predictors.base import LEAST_LATENCY_S, P90, Floats, StepSample, V
from controller_service.predictors.least_squares import PRIOR_SHAPE
from controller_service.predictors.linear import LEAST_SAMPLES
from controller_service.predictors.samples import Window

ROW_SHARE = float(PRIOR_SHAPE[1] / PRIOR_SHAPE[0])
"""Cost of one row over the fixed cost of a step; typical of GPUs, and never learnt here."""
WINDOW = 200
REFIT_EVERY_S = 600.0


class ConstantPredictor:
    """``T = level * (1 + ROW_SHARE * rows)``, on the published schedule."""

    name = "constant"

    def __init__(self) -> None:
        self.fitted = False
        self.version = 0
        self._level_s = 0.0
        self._p90 = 1.0
        self._window = Window(WINDOW)
        self._next_fit_s = float("-inf")

    def predict(
        self,
        rows: V,
        context_tokens: V,
        prefill_tokens: float | V = 0.0,
        draft_tokens: float | V = 0.0,
    ) -> V:
        shares: Any = 1.0 + ROW_SHARE * draft_tokens
        step_s: V = self._level_s * (shares + ROW_SHARE * rows)
        return step_s

    def predict_p90(
        self,
        rows: V,
        context_tokens: V,
        prefill_tokens: float | V = 0.0,
        draft_tokens: float | V = 0.0,
    ) -> V:
        return self._p90 * self.predict(rows, context_tokens, prefill_tokens, draft_tokens)

    def observe(self, sample: StepSample) -> None:
        if sample.rows and not sample.prefill_tokens and sample.latency_s >= LEAST_LATENCY_S:
            self._window.add(sample)

    def least_rows_s(self, most_rows: int) -> Floats:
        return np.arange(most_rows + 1, dtype=np.float64) * (self._level_s * ROW_SHARE)

    def refit_due(self, now_s: float) -> bool:
        return now_s >= self._next_fit_s and len(self._window) >= LEAST_SAMPLES

    def refit(self, now_s: float) -> None:
        self._next_fit_s = now_s + REFIT_EVERY_S
        rows, _, latency = self._window.design()
        levels = latency / (1.0 + ROW_SHARE * rows)
        self._level_s = float(np.median(levels))
        self._p90 = max(1.0, float(np.quantile(levels, P90)) / self._level_s)
        self.fitted = True
        self.version += 1

    def coefficients(self) -> Mapping[str, float]:
        return {"level_s": self._level_s, "row_share": ROW_SHARE} if self.fitted else {}
