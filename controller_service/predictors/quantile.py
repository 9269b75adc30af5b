"""A quantile that is followed as it moves."""

from __future__ import annotations

LARGEST = 5.0
STEP = 0.1
"""Size of a step in units of the spread; larger is quicker and less steady."""

FIRST_STEPS = 20.0
SPREAD_STEP = 0.03
LEAST_SPREAD = 1e-4


class QuantileRatio:
    """The ratio that a share ``quantile`` of measured over predicted values stays below.

    Stochastic approximation (Robbins and Monro, 1951): up by ``quantile`` parts of a step when a
    value lies above, down by the rest when below, so that over any long stretch the share below is
    ``quantile`` whatever the distribution. Steps are sized by the spread, which is followed in the
    same way and hence moved by no outlier.
    """

    def __init__(self, quantile: float) -> None:
        self.ratio = 1.0
        self.spread = 0.01
        """Median distance from 1 of what was seen."""
        self._quantile = quantile
        self._seen = 0

    def follow(self, measured_ratio: float, around: float = 1.0) -> None:
        """Take in a value.

        Args:
            measured_ratio: measured over predicted quantile without this ratio.
            around: the same over the predicted mean; tells the spread.
        """
        self._seen += 1
        pace = 1.0 + FIRST_STEPS / (self._seen + 1.0)
        apart = abs(around - 1.0)
        self.spread *= 1.0 + SPREAD_STEP * pace * (0.5 if apart > self.spread else -0.5)
        self.spread = min(max(self.spread, LEAST_SPREAD), 1.0)
        step = STEP * pace * self.spread
        up = measured_ratio > self.ratio
        moved = self.ratio + step * (self._quantile if up else self._quantile - 1.0)
        self.ratio = min(max(moved, 1.0 / LARGEST), LARGEST)
