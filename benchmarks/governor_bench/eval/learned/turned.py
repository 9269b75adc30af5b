"""A predictor that becomes wrong by a factor in the middle of a run."""

from __future__ import annotations

from controller_service.predictors.base import StepLatencyPredictor, StepSample
from controller_service.predictors.wrapped import WrappedPredictor


class TurnedPredictor(WrappedPredictor):
    """Predicts what ``base`` does; from one step on, ``factor`` times that."""

    def __init__(self, base: StepLatencyPredictor, at_step: int, factor: float) -> None:
        super().__init__(base)
        self._at_step = at_step
        self._observed = 0
        self._later_factor = factor

    @property
    def name(self) -> str:
        return f"{self._base.name}, later x {self._later_factor:g}"

    def observe(self, sample: StepSample) -> None:
        super().observe(sample)
        self._observed += 1
        if self._observed + 1 == self._at_step:
            self._factor = self._later_factor
