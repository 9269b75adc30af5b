"""Stretches of equal rows and draft lengths, each summed up as one step time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import msgspec
import numpy as np

from governor_bench.profiling.point import Point
from governor_bench.profiling.steps import DECODE, LEAST_PER_LEVEL, Step


class Cell(msgspec.Struct, frozen=True):
    """What steps of equal rows took."""

    rows: int
    context_tokens: float
    """Summed over the rows; mean of the stretch."""
    step_s: float
    """Median."""
    steps: int
    draft_length: int = 0
    draft_tokens: float = 0.0
    """Verified beyond one token a row, summed; mean."""


def cells_of(point: Point, steps: Sequence[Step]) -> list[Cell]:
    """The cells of a point of decode or of drafts, from the steps that measure it."""
    found = []
    for rows, length in product(point.rows, point.draft_lengths or (0,)):
        level = [
            step
            for step in steps
            if step.kind == DECODE and (step.rows, step.draft_length) == (rows, length)
        ]
        if len(level) >= LEAST_PER_LEVEL:
            context, drafts = np.mean(
                [(step.context_tokens, step.draft_tokens) for step in level], axis=0
            )
            median_s = float(np.median([step.latency_s for step in level]))
            found.append(Cell(rows, float(context), median_s, len(level), length, float(drafts)))
    return found
