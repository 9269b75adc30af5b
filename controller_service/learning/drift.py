"""Whether what a model is off by has changed, and since when.

The detector is river's ADWIN (Bifet and Gavalda, 2007): it keeps a window of residuals and cuts it
where two parts of it differ by more than chance allows. Of river's detectors, Page-Hinkley is
quicker, but its threshold is an absolute one: with errors of 10 % that last over a few steps, as
models have them, it raises hundreds of false alarms where ADWIN raises next to none.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec
import numpy as np

CHANCE = 1e-6
"""ADWIN's delta. Residuals of neighbouring steps are alike, which ADWIN takes for evidence: with
its default of 0.002 it is wrong some ten times as often."""
CLOCK = 8
GRACE_STEPS = 16
KEPT = 256
"""Newest residuals, from which the moment of the change is told."""
LEAST_SIDE = 4


class Change(msgspec.Struct, frozen=True):
    """What changed, and when."""

    newer_steps: int
    """Residuals since the change."""
    shift: float
    """Mean residual since, less the mean before."""


class DriftDetector:
    """Watches a stream of residuals of one model.

    Raises:
        ImportError: river is not installed. It is imported here, and takes seconds.
    """

    def __init__(self) -> None:
        from river.drift import ADWIN  # noqa: PLC0415 - seconds to import, needed by few

        self._make: Any = ADWIN
        self.restart()

    def restart(self) -> None:
        """Begin anew: another model, or a machine that is known to have changed."""
        self._adwin = self._make(delta=CHANCE, clock=CLOCK, grace_period=GRACE_STEPS)
        self._newest: deque[float] = deque(maxlen=KEPT)

    def add(self, residual: float) -> bool:
        """Take in the next residual; whether it shows a drift. The stream goes on after one."""
        self._newest.append(residual)
        self._adwin.update(residual)
        return bool(self._adwin.drift_detected)

    def change(self) -> Change:
        """The likeliest moment of change among the newest residuals."""
        values = np.array(self._newest)
        count = len(values)
        if count < 2 * LEAST_SIDE:
            return Change(count, 0.0)
        sides = np.arange(LEAST_SIDE, count - LEAST_SIDE + 1)
        sums = np.cumsum(values)
        before = sums[sides - 1] / sides
        since = (sums[-1] - sums[sides - 1]) / (count - sides)
        evidence = np.abs(since - before) * np.sqrt(sides * (count - sides) / count)
        best = int(np.argmax(evidence))
        return Change(count - int(sides[best]), float(since[best] - before[best]))
