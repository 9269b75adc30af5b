"""A smooth backbone with the bends that GPUs show, in closed form and nowhere falling.

``T(rows, context)`` is a sum of terms, none of which falls in either argument, with non-negative
weights: a line; rows padded to the captured graph that a batch runs in, and a step at each; started
tiles of a matrix product; and ramps between powers of two, along rows and along context, which let
each slope change (a step that turns compute-bound, attention at long context). The weights are
ridge regression towards the line alone: what data do not show stays straight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import msgspec
import numpy as np
from scipy.optimize import nnls

from controller_service.learning.arrays import Array, floats
from controller_service.learning.families.axes import padded
from controller_service.learning.families.line import Line
from controller_service.learning.samples import Samples
from controller_service.predictors.base import Floats

TILES = (8, 16, 32, 64, 128, 256)
"""Rows of a tile: products of matrices are computed in blocks of one of these."""
RAMPS_PER_OCTAVE = 3
CONTEXT_OCTAVES = 9
"""Below 1/512 of the longest context its cost is lost in noise."""
LEAST_NOISE = 0.003
HUBER = 2.0
PASSES = 4
MOST_KNOTS = 256
MOST_GRAPHS = 512


class Backbone(msgspec.Struct, frozen=True, eq=False):
    """The terms, and the weight of each."""

    graph_rows: tuple[int, ...]
    row_knots: Floats
    """Rising, shape ``(k,)``: ramps run from each to the next."""
    context_knots: Floats
    weights: Floats
    """Seconds for one unit of each column of :meth:`terms`, at least 0."""

    def seconds(self, rows: Floats, context: Floats) -> Floats:
        """Shape ``(n,)``, as the arguments."""
        found: Floats = self.terms(rows, context) @ self.weights
        return found

    def terms(self, rows: Floats, context: Floats) -> Floats:
        """Shape ``(n, columns)``; none falls as rows or context grow."""
        computed = padded(rows, self.graph_rows)
        # Beyond the last graph rows are not padded: the steps at graphs end there, and stay.
        graphs = [computed >= size for size in self.graph_rows[1:]]
        columns = [
            np.ones_like(rows),
            rows,
            context,
            computed,
            *(np.ceil(computed / tile) for tile in TILES),
            *graphs,
            *_ramps(rows, self.row_knots),
            *_ramps(context, self.context_knots),
        ]
        return np.column_stack(columns)

    def arrays(self) -> dict[str, Array]:
        """For :func:`backbone_from`."""
        return {
            "graph_rows": np.array(self.graph_rows, dtype=np.float64),
            "row_knots": self.row_knots,
            "context_knots": self.context_knots,
            "weights": self.weights,
        }


def backbone_from(arrays: Mapping[str, Array]) -> Backbone:
    """
    Raises:
        ValueError: an array is missing or wrong.
    """
    graphs = floats(arrays, "graph_rows", 1)
    knots = [floats(arrays, name, 1) for name in ("row_knots", "context_knots")]
    weights = floats(arrays, "weights", 1)
    if len(graphs) > MOST_GRAPHS or max(map(len, knots)) > MOST_KNOTS:
        raise ValueError("the backbone has more graphs or knots than one has")
    for axis in (graphs, *knots):
        if (axis < 0).any() or (np.diff(axis) <= 0).any():
            raise ValueError("graphs and knots of the backbone must rise")
    backbone = Backbone(tuple(int(size) for size in graphs), knots[0], knots[1], weights)
    columns = backbone.terms(np.ones(1), np.ones(1)).shape[1]
    if len(weights) != columns or (weights < 0).any():
        raise ValueError(f"the backbone needs {columns} weights, each at least 0")
    return backbone


def fit_backbone(decode: Samples, line: Line, graph_rows: tuple[int, ...]) -> Backbone:
    """
    Args:
        decode: steps of decode alone.
        line: fitted to them; the scale of the prior.
    """
    last = float(decode.rows.max())
    octaves = int(np.ceil(np.log2(max(last, 2.0))))
    row_knots = np.concatenate([[0.0], np.exp2(np.arange(octaves + 1))])
    most = max(float(decode.context_tokens.max()), 2.0)
    count = CONTEXT_OCTAVES * RAMPS_PER_OCTAVE + 1
    context_knots = np.concatenate([[0.0], np.geomspace(most / 2**CONTEXT_OCTAVES, most, count)])
    sizes = tuple(size for size in graph_rows if size <= 2 * last)
    shape = Backbone(sizes, row_knots, context_knots, np.zeros(0))
    units = _units(shape, line, decode)
    columns = shape.terms(decode.rows, decode.context_tokens) * units
    weights = _ridge(columns, decode.latency_s) * units
    return Backbone(sizes, row_knots, context_knots, weights)


def _ramps(values: Floats, knots: Floats) -> list[Floats]:
    return [np.clip(values, low, high) - low for low, high in pairwise(knots)]


def _units(shape: Backbone, line: Line, decode: Samples) -> Floats:
    """Seconds that each column's weight is expected to stay below: bends as large as what the line
    makes of the same stretch."""
    fixed = max(line[0], 0.1 * float(np.median(decode.latency_s)))
    graphs = [line[1] * (b - a) for a, b in pairwise(shape.graph_rows)]
    rows = [line[1]] * (len(shape.row_knots) - 1)
    context = [line[2]] * (len(shape.context_knots) - 1)
    tiles = [line[1] * tile for tile in TILES]
    return np.array([fixed, line[1], line[2], line[1], *tiles, *graphs, *rows, *context])


FREE = 3
"""The first columns are the line, which is not pulled anywhere."""


def _ridge(columns: Floats, latency: Floats) -> Floats:
    """Non-negative weights in units of the prior; relative error, Huber's weights."""
    pull = np.ones(columns.shape[1])
    pull[:FREE] = 1e-3
    trust, typical, noise = np.ones(len(latency)), latency, 0.02
    weights = np.zeros(columns.shape[1])
    solve = _solver(pull)
    for _ in range(PASSES):
        weights = solve(columns, latency, np.sqrt(trust) / typical, noise)
        fitted = np.maximum(columns @ weights, 1e-9)
        error = np.abs(latency / fitted - 1.0)
        noise = max(1.4826 * float(np.median(error)), LEAST_NOISE)
        trust = np.minimum(1.0, HUBER * noise / np.maximum(error, 1e-9))
        typical = fitted
    return weights


def _solver(pull: Floats) -> Callable[[Floats, Floats, Floats, float], Floats]:
    def solve(columns: Floats, latency: Floats, root: Floats, noise: float) -> Floats:
        matrix = np.vstack([columns * root[:, None], np.diag(noise * pull)])
        target = np.concatenate([latency * root, np.zeros(len(pull))])
        # As many rows as columns are left of any number of samples, at the same solution.
        orthogonal, triangle = np.linalg.qr(matrix)
        found, _ = nnls(triangle, orthogonal.T @ target, maxiter=30 * len(pull))
        return np.asarray(found, dtype=np.float64)

    return solve
