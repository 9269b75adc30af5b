"""Predictors as an evaluation needs them: trained beforehand, and wrong on demand."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from governor_profiles import StepProfile

from controller_service.predictors.base import (
    Floats,
    KnowsRowCost,
    StepLatencyPredictor,
    StepSample,
    V,
)
from controller_service.predictors.corrected import CorrectedPredictor
from controller_service.predictors.registry import CORRECTED, make_predictor

TRAINING_STEPS = 200
NOISE = 0.015


def trained(
    name: str, profile: StepProfile, seed: int, factor: float = 1.0
) -> StepLatencyPredictor:
    """A predictor that has profiled the engine: 200 decode steps over TAPER's grid (1 to 512 rows,
    contexts of 128 to 8192), each measured with 1.5 % noise.

    Args:
        factor: every prediction of the base is wrong by it; a correction, if the predictor has
            one, sits on top.
    """
    base = make_predictor(name.removeprefix(CORRECTED))
    rng = np.random.default_rng(seed)
    for _ in range(TRAINING_STEPS):
        rows = int(2 ** rng.uniform(0, 9))
        context = rows * int(2 ** rng.uniform(7, 13))
        seconds = profile.step_s(rows, context) * float(rng.normal(1.0, NOISE))
        base.observe(StepSample(rows, context, 0, seconds))
    base.refit(0.0)
    if factor != 1.0:
        base = MisSetPredictor(base, factor)
    return CorrectedPredictor(base) if name.startswith(CORRECTED) else base


class MisSetPredictor:
    """Predicts ``factor`` times what ``base`` predicts, and never learns better."""

    version = 0

    def __init__(self, base: StepLatencyPredictor, factor: float) -> None:
        self._base = base
        self._factor = factor

    @property
    def name(self) -> str:
        return f"{self._base.name} x {self._factor:g}"

    @property
    def fitted(self) -> bool:
        return self._base.fitted

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
        if isinstance(self._base, KnowsRowCost):
            return self._factor * self._base.least_rows_s(most_rows)
        return np.zeros(most_rows + 1)

    def observe(self, sample: StepSample) -> None:
        """It was set up once."""

    def refit_due(self, now_s: float) -> bool:
        return False

    def refit(self, now_s: float) -> None:
        """It was set up once."""

    def coefficients(self) -> Mapping[str, float]:
        return self._base.coefficients()
