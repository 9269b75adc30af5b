"""Where a model is evaluated when it is compiled: every whole row, and a grid over the context."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from controller_service.learning.samples import Samples
from controller_service.predictors.base import Floats

DENSE_ROWS = 512
"""Up to here a model is asked for every whole number of rows; geometrically beyond."""
MOST_ROWS = 4096
"""Rows of the largest batch that the wire carries."""
MOST_CONTEXT = float(1 << 30)
OCTAVES = 10
PER_OCTAVE = 4


class Axes(msgspec.Struct, frozen=True, eq=False):
    """The grid of a compiled table."""

    rows: Floats
    """Whole numbers, rising, shape ``(r,)``, from 0."""
    context: Floats
    """Tokens, rising, shape ``(c,)``, from 0."""

    def mesh(self) -> tuple[Floats, Floats]:
        """Rows and context of every point, each of shape ``(r, c)``."""
        rows, context = np.meshgrid(self.rows, self.context, indexing="ij")
        return rows, context

    def dense(self, values: Floats) -> Floats:
        """``values`` of shape ``(r, c)`` for every whole number of rows, linear in between."""
        every = np.arange(self.rows[-1] + 1)
        left = np.minimum(self.rows.searchsorted(every, side="right"), len(self.rows) - 1) - 1
        width = self.rows[left + 1] - self.rows[left]
        share = ((every - self.rows[left]) / width)[:, None]
        between: Floats = (1.0 - share) * values[left] + share * values[left + 1]
        return between


def axes_for(samples: Samples, graph_rows: Sequence[int]) -> Axes:
    """Twice as far as the samples reach, so that a little beyond them the bends still hold."""
    reach = max(2.0 * float(samples.rows.max()), 64.0)
    graphs = [size for size in graph_rows if size <= reach]
    most_rows = int(min(max(reach, *graphs, 0), MOST_ROWS))
    dense = np.arange(min(most_rows, DENSE_ROWS) + 1)
    sparse: Floats = np.geomspace(DENSE_ROWS, max(most_rows, DENSE_ROWS), 25)
    sparse = sparse[sparse <= most_rows]
    # A jump between two captured sizes survives only if both sides of it are on the grid.
    edges = [g + side for g in graphs for side in (0, 1) if g + side <= most_rows]
    rows = np.unique(np.rint(np.concatenate([dense, sparse, edges])))
    most_context = min(max(2.0 * float(samples.context_tokens.max()), 1024.0), MOST_CONTEXT)
    points = OCTAVES * PER_OCTAVE + 1
    spaced = np.geomspace(most_context / 2**OCTAVES, most_context, points)
    return Axes(rows, np.concatenate([[0.0], spaced]))


def padded(rows: Floats, graph_rows: Sequence[int]) -> Floats:
    """Rows that the device computes: the next captured size, where there is one."""
    if not graph_rows:
        return rows
    sizes = np.asarray(graph_rows, dtype=np.float64)
    at = np.minimum(sizes.searchsorted(rows), len(sizes) - 1)
    inside = (rows > 0) & (rows <= sizes[-1])
    return np.where(inside, sizes[at], rows)
