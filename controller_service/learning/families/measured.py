"""A table of what was measured: the median of every cell of rows x context.

Cells hold the ratio to a line, so that gaps are filled by near cells in proportion, and beyond the
measured area the line goes on.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from controller_service.learning.families.assemble import DecodeCurve, assemble
from controller_service.learning.families.axes import padded
from controller_service.learning.families.compiled import CompiledModel
from controller_service.learning.families.family import Family
from controller_service.learning.families.line import Line, line_s
from controller_service.learning.families.stored_tables import loader, model_of
from controller_service.learning.samples import Samples
from controller_service.predictors.base import Floats

Index = npt.NDArray[np.intp]

MOST_LEVELS = 64
"""Distinct numbers of rows; more are put into geometric bins."""
CONTEXT_PER_OCTAVE = 2
FULL_CELL = 8.0
"""Samples from which on a cell speaks for itself alone; below, near cells have a say."""


def fit(train: Samples, graph_rows: tuple[int, ...] = ()) -> CompiledModel:
    """See :class:`~.family.Family`."""

    def curve(decode: Samples, line: Line) -> DecodeCurve:
        return _cells(decode, line, graph_rows)

    return model_of("measured", assemble(train, graph_rows, curve))


def _cells(decode: Samples, line: Line, graph_rows: tuple[int, ...]) -> DecodeCurve:
    rows = padded(decode.rows, graph_rows)
    level, levels = _bins(rows)
    column, columns = _octaves(decode.context_tokens)
    ratio = decode.latency_s / line_s(line, decode.rows, decode.context_tokens)
    medians = np.ones((len(levels), len(columns)))
    counts = np.zeros_like(medians)
    place = level * len(columns) + column
    order = np.argsort(place, kind="stable")
    places, starts = np.unique(place[order], return_index=True)
    for at, inside in zip(places, np.split(ratio[order], starts[1:]), strict=True):
        medians.flat[at], counts.flat[at] = np.median(inside), len(inside)
    filled = _fill(np.log2(levels), np.log2(columns), medians, counts)

    def seconds(rows: Floats, context: Floats) -> Floats:
        by_rows = _between(np.log2(levels), np.log2(np.maximum(padded(rows, graph_rows), 1.0)))
        by_context = _between(np.log2(columns), np.log2(np.maximum(context, 1.0)))
        return _bilinear(filled, by_rows, by_context) * line_s(line, rows, context)

    return seconds


def _bins(rows: Floats) -> tuple[Index, Floats]:
    """Index of each value's level, and the levels (rows), rising."""
    levels, index = np.unique(rows, return_inverse=True)
    if len(levels) <= MOST_LEVELS:
        return index, levels
    edges = np.unique(np.rint(np.geomspace(1, levels[-1] + 1, MOST_LEVELS + 1)))
    binned = edges.searchsorted(rows, side="right")
    used, index = np.unique(binned, return_inverse=True)
    means = [float(rows[binned == one].mean()) for one in used]
    return index, np.maximum.accumulate(np.array(means))


def _octaves(context: Floats) -> tuple[Index, Floats]:
    """Index of each value's bin, and the mean context of the bins, rising."""
    binned = np.floor(np.log2(np.maximum(context, 1.0)) * CONTEXT_PER_OCTAVE)
    used, index = np.unique(binned, return_inverse=True)
    means = [float(np.maximum(context[binned == one], 1.0).mean()) for one in used]
    return index, np.array(means)


def _fill(level: Floats, column: Floats, medians: Floats, counts: Floats) -> Floats:
    """Every cell: its own median as far as it has samples, near cells' by inverse distance."""
    known = counts.ravel() > 0
    down, across = np.subtract.outer(level, level) ** 2, np.subtract.outer(column, column) ** 2
    cells = medians.size
    apart = (down[:, None, :, None] + across[None, :, None, :]).reshape(cells, cells)[:, known]
    trust = np.minimum(counts.ravel()[known], FULL_CELL)
    own = np.minimum(counts.ravel() / FULL_CELL, 1.0)
    weight = trust / (apart**2 + 1e-3)
    others = (weight * medians.ravel()[known]).sum(axis=1) / weight.sum(axis=1)
    filled: Floats = (own * medians.ravel() + (1.0 - own) * others).reshape(medians.shape)
    return filled


def _between(axis: Floats, values: Floats) -> tuple[Index, Floats]:
    """Cell and position in it, held at the ends."""
    if len(axis) == 1:
        return np.zeros(len(values), dtype=np.intp), np.zeros(len(values))
    clipped = np.clip(values, axis[0], axis[-1])
    cell = np.clip(axis.searchsorted(clipped, side="right") - 1, 0, len(axis) - 2)
    width = np.maximum(axis[cell + 1] - axis[cell], 1e-12)
    return cell, (clipped - axis[cell]) / width


def _bilinear(
    values: Floats, by_rows: tuple[Index, Floats], by_context: tuple[Index, Floats]
) -> Floats:
    (i, x), (j, y) = by_rows, by_context
    down = np.minimum(i + 1, values.shape[0] - 1)
    right = np.minimum(j + 1, values.shape[1] - 1)
    near = (1 - y) * values[i, j] + y * values[i, right]
    far = (1 - y) * values[down, j] + y * values[down, right]
    found: Floats = (1 - x) * near + x * far
    return found


FAMILY = Family(
    name="measured",
    summary="medians of what was measured, by rows and context",
    features=("rows", "context_tokens", "prefill_tokens", "draft_tokens"),
    libraries=("numpy",),
    fit=fit,
    load=loader("measured"),
)
