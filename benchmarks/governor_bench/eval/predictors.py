"""Predictors as an evaluation needs them: trained beforehand, and wrong on demand."""

from __future__ import annotations

import numpy as np
from governor_profiles import StepProfile

from controller_service.predictors.base import StepLatencyPredictor, StepSample
from controller_service.predictors.corrected import CorrectedPredictor
from controller_service.predictors.registry import CORRECTED, make_predictor
from controller_service.predictors.wrapped import WrappedPredictor

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


class MisSetPredictor(WrappedPredictor):
    """Predicts ``factor`` times what ``base`` predicts, and never learns better."""

    @property
    def name(self) -> str:
        return f"{self._base.name} x {self._factor:g}"

    @property
    def version(self) -> int:
        return 0

    def observe(self, sample: StepSample) -> None:
        """It was set up once."""

    def refit_due(self, now_s: float) -> bool:
        return False

    def refit(self, now_s: float) -> None:
        """It was set up once."""
