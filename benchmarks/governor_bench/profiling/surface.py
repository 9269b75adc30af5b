"""Step times over rows and summed context, fitted to measured cells. Pure.

The model is a monotone function of rows plus a monotone function of context - what matrix products
and what attention cost - with a smooth local correction where the measurements ask for one. Rows
that share a captured graph share a value, and no value between two measured sizes is smoothed over
a third, so jumps stay where they were measured.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from governor_bench.profiling.cells import Cell
from governor_bench.profiling.nonnegative import nonnegative
from governor_bench.profiling.point import LEAST_CONTEXT_TOKENS

Floats = npt.NDArray[np.float64]

KNOTS_PER_OCTAVE = 2
STIFFNESS = 0.05
"""Pull of neighbouring context slopes towards each other, as a relative error of the step."""
REACH_OCTAVES = 0.7
"""Distance over which the correction at one cell reaches its neighbours."""
SHRINK = 1.0
"""Cells' worth of belief that there is nothing to correct."""
FLOOR = 0.1
"""No step is this much faster than the fastest one measured."""
LEAST_STEP_S, MOST_STEP_S = 1e-6, 3600.0
FOLDS = 5
LEAST_CELLS = 3


class Surface:
    """Fitted step times.

    Args:
        cells: at least three.
        graph_rows: captured batch sizes, rising; empty without graphs.
        kv_tokens: up to which summed context the surface is to reach.

    Raises:
        ValueError: too few cells.
    """

    def __init__(self, cells: Sequence[Cell], graph_rows: Sequence[int], kv_tokens: int) -> None:
        if len(cells) < LEAST_CELLS:
            raise ValueError(
                f"{len(cells)} cells were measured; {LEAST_CELLS} are needed: raise the budget"
            )
        self._graph_rows = tuple(graph_rows)
        rows = np.array([self.padded(cell.rows) for cell in cells], dtype=np.float64)
        context = np.array([cell.context_tokens for cell in cells])
        measured_s = np.array([cell.step_s for cell in cells])
        self._sizes = np.unique(rows)
        self._knots = _knots(float(context.min()), max(float(kv_tokens), float(context.max())))
        self._increments = _fit(self._design(rows, context), measured_s, len(self._sizes))
        self._floor_s = FLOOR * float(measured_s.min())
        self._at = np.log2(np.stack([rows, context], axis=1))
        self._residual = measured_s / self._additive(rows, context) - 1.0

    def padded(self, rows: int) -> int:
        """Rows that the engine computes for a batch of ``rows``."""
        index = bisect_left(self._graph_rows, rows)
        return self._graph_rows[index] if index < len(self._graph_rows) else rows

    def step_s(self, rows: Floats, context_tokens: Floats) -> Floats:
        """Time of decode steps, s; not yet monotone.

        Args:
            rows: as many as the device computes, see :meth:`padded`; shape ``(n,)``.
            context_tokens: summed; same shape.
        """
        where = np.log2(np.stack([rows, np.maximum(context_tokens, 1.0)], axis=1))
        apart = ((where[:, None, :] - self._at[None, :, :]) ** 2).sum(axis=2)
        weight = np.exp(-apart / (2.0 * REACH_OCTAVES**2))
        correction = (weight @ self._residual) / (weight.sum(axis=1) + SHRINK)
        corrected: Floats = self._additive(rows, context_tokens) * (1.0 + correction)
        return corrected

    def table(self) -> tuple[list[int], list[int], Floats]:
        """A monotone grid: rows, summed contexts, and seconds of shape ``(rows, contexts)``.

        Its rows are one, the measured sizes, and the captured graph sizes up to the largest of
        them. Below what was measured, the table is flat.
        """
        high = int(self._sizes[-1])
        sizes = {1, *(int(size) for size in self._sizes)}
        sizes |= {size for size in self._graph_rows if size <= high}
        if len(sizes) == 1:
            sizes.add(high + 1)
        rows = sorted(sizes)
        contexts = sorted({1, *(round(knot) for knot in self._knots)})
        across, along = np.meshgrid(rows, contexts, indexing="ij")
        raw = self.step_s(across.ravel().astype(float), along.ravel().astype(float))
        possible = np.clip(raw, LEAST_STEP_S, MOST_STEP_S)
        return rows, contexts, monotone(possible.reshape(across.shape))

    def _additive(self, rows: Floats, context: Floats) -> Floats:
        fitted = self._design(rows, context) @ self._increments
        floored: Floats = np.maximum(fitted, self._floor_s)
        return floored

    def _design(self, rows: Floats, context: Floats) -> Floats:
        """One column for the first size, one for each rise to the next, one for each slope."""
        sizes, knots = self._sizes, self._knots
        first = np.ones((len(rows), 1))
        spans = np.diff(sizes)
        rises = np.clip((rows[:, None] - sizes[None, :-1]) / spans, 0.0, 1.0)
        slopes = np.clip(context[:, None] - knots[None, :-1], 0.0, np.diff(knots))
        return np.concatenate([first, rises, slopes], axis=1)


def held_out_error(cells: Sequence[Cell], graph_rows: Sequence[int], kv_tokens: int) -> float:
    """Mean relative error on cells that a surface has not seen; 1 for too few cells.

    Batches of a size that was measured err like cells left out one by one, batches of another size
    like sizes left out whole. Both kinds count by their share of the sizes that there are.
    """
    if len(cells) < 2 * FOLDS:
        return 1.0
    whole = Surface(cells, graph_rows, kv_tokens)
    sizes = sorted({whole.padded(cell.rows) for cell in cells})
    rng = np.random.Generator(np.random.PCG64(1))
    single = _error_over_folds(
        cells, list(rng.permutation(len(cells)) % FOLDS), graph_rows, kv_tokens
    )
    # The ends stay: nobody asks for what lies beyond them.
    fold_of = {size: index % FOLDS for index, size in enumerate(sizes[1:-1])}
    folds = [fold_of.get(whole.padded(cell.rows), -1) for cell in cells]
    unseen = _error_over_folds(cells, folds, graph_rows, kv_tokens)
    known = {size for size in graph_rows if size <= sizes[-1]}
    share = len(known - set(sizes)) / len(known) if known else 1.0
    return (1.0 - share) * single + share * unseen


def _error_over_folds(
    cells: Sequence[Cell], folds: Sequence[int], graph_rows: Sequence[int], kv_tokens: int
) -> float:
    """Mean relative error on the cells of each fold by a surface of the others; below 0: kept."""
    errors: list[float] = []
    for fold in sorted({fold for fold in folds if fold >= 0}):
        kept = [cell for cell, at in zip(cells, folds, strict=True) if at != fold]
        if len(kept) < LEAST_CELLS:
            continue
        surface = Surface(kept, graph_rows, kv_tokens)
        held = [cell for cell, at in zip(cells, folds, strict=True) if at == fold]
        rows = np.array([float(surface.padded(cell.rows)) for cell in held])
        predicted_s = surface.step_s(rows, np.array([cell.context_tokens for cell in held]))
        measured_s = np.array([cell.step_s for cell in held])
        errors += list(np.abs(predicted_s / measured_s - 1.0))
    return float(np.mean(errors)) if errors else 1.0


def monotone(values: Floats) -> Floats:
    """The nearest table, midway between the two envelopes, that falls along neither axis."""
    above, below = values, values
    for axis in (0, 1):
        above = np.maximum.accumulate(above, axis=axis)
        below = np.flip(np.minimum.accumulate(np.flip(below, axis), axis=axis), axis)
    middle: Floats = (above + below) / 2.0
    return middle


def _knots(low: float, high: float) -> Floats:
    low = max(1.0, min(low, LEAST_CONTEXT_TOKENS))
    count = max(2, 1 + round(KNOTS_PER_OCTAVE * np.log2(max(high, 2 * low) / low)))
    return np.unique(np.round(np.geomspace(low, max(high, 2 * low), count)))


def _fit(design: Floats, measured_s: Floats, sizes: int) -> Floats:
    """Non-negative increments with the least relative error."""
    relative = design / measured_s[:, None]
    slopes = design.shape[1] - sizes
    # A slope is weighed by what it adds to a typical step over the width of its interval.
    width = np.maximum(relative[:, sizes:].max(axis=0), 1e-12)
    pull = np.zeros((max(slopes - 1, 0), design.shape[1]))
    for index in range(slopes - 1):
        scale = STIFFNESS * min(width[index], width[index + 1])
        scale = max(scale, STIFFNESS * float(width.max()) * 1e-2)
        pull[index, sizes + index], pull[index, sizes + index + 1] = scale, -scale
    matrix = np.concatenate([relative, pull])
    target = np.concatenate([np.ones(len(measured_s)), np.zeros(len(pull))])
    return nonnegative(matrix, target)
