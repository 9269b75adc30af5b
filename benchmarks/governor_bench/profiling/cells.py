"""Stretches of equal rows, each summed up as one step time."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from governor_bench.profiling.plan import Point
from governor_bench.profiling.steps import DECODE, LEAST_PER_LEVEL, Step


class Cell(msgspec.Struct, frozen=True):
    """What one stretch of equal rows took."""

    rows: int
    context_tokens: float
    """Summed over the rows; mean of the stretch."""
    step_s: float
    """Median."""
    steps: int


def cells_of(point: Point, steps: Sequence[Step]) -> list[Cell]:
    """The cells of a decode point, from the steps that measure it."""
    found = []
    for rows in point.rows:
        level = [step for step in steps if step.kind == DECODE and step.rows == rows]
        if len(level) >= LEAST_PER_LEVEL:
            context = float(np.mean([step.context_tokens for step in level]))
            median_s = float(np.median([step.latency_s for step in level]))
            found.append(Cell(rows, context, median_s, len(level)))
    return found
