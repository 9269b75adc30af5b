"""A new model on probation: the one before it keeps predicting beside it, unheard.

The promise of a holdout is about yesterday. For some hundred steps after a change of model, both
are held against what is measured; if the new one does worse than the old one would have done, it
has to go.
"""

from __future__ import annotations

from controller_service.learning.model import StepModel
from controller_service.predictors.base import StepSample
from controller_service.predictors.linear import LinearPredictor

WATCH_STEPS = 512
LEAST_STEPS = 48
MEMORY_STEPS = 64.0
WORSE_FACTOR = 1.25
WORSE_POINTS = 0.01
"""A model goes when its error exceeds that of the one before by a quarter and by one point."""
LARGEST_ERROR = 0.5
"""A step counts as this far off at most: a stall says nothing of either."""

Predicts = StepModel | LinearPredictor


class Watch:
    """Compares two predictors on the same steps."""

    def __init__(self, steps: int = WATCH_STEPS) -> None:
        self._left = steps
        self._seen = 0
        self.error = 0.0
        """Mean relative error of the one that predicts, over the last steps."""
        self.error_before = 0.0
        """The same of the one before it."""

    @property
    def over(self) -> bool:
        """Whether the probation was passed."""
        return self._left <= 0

    def add(self, sample: StepSample, current: Predicts, before: Predicts) -> bool:
        """Take in a decode step; whether ``current`` has turned out to be the worse."""
        self._left -= 1
        self._seen += 1
        gain = max(1.0 / self._seen, 1.0 / MEMORY_STEPS)
        self.error += gain * (_error(current, sample) - self.error)
        self.error_before += gain * (_error(before, sample) - self.error_before)
        if self._seen < LEAST_STEPS:
            return False
        return self.error > WORSE_FACTOR * self.error_before + WORSE_POINTS


def _error(predicts: Predicts, sample: StepSample) -> float:
    predicted_s = predicts.predict(
        float(sample.rows), float(sample.context_tokens), 0.0, float(sample.draft_tokens)
    )
    return float(min(abs(predicted_s / sample.latency_s - 1.0), LARGEST_ERROR))
