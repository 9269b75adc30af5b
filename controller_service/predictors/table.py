"""A monotone table of step latency: what a boosted model is compiled into."""

from __future__ import annotations

from typing import Any

import numpy as np

from controller_service.predictors.base import Floats, V


class MonotoneTable:
    """Step latency over a grid of rows x summed context, never falling along either axis.

    The grid is over *summed* context rather than context per row: adding a short row lowers the
    mean, so only in (rows, sum) does "never falling along both axes" mean that no added row, of
    any length, can have a negative cost. Between grid points it is bilinear, so a linear cost
    survives the compilation exactly; beyond them it grows by ``slopes``.
    """

    def __init__(
        self, rows: Floats, context: Floats, latency_s: Floats, slopes: tuple[float, float]
    ) -> None:
        """
        Args:
            rows: ascending, shape ``(r,)``, starts at 0.
            context: ascending, shape ``(c,)``, starts at 0.
            latency_s: shape ``(r, c)``, seconds; must not fall along either axis.
            slopes: cost of a row and of a context token beyond the grid; seconds.
        """
        self._rows, self._context, self._slopes = rows, context, slopes
        self._columns = len(context)
        self._values = np.ascontiguousarray(latency_s).ravel()

    def predict(self, rows: V, context_tokens: V) -> V:
        """Seconds, in the shape of the arguments."""
        i, x, past_rows = _locate(self._rows, rows)
        j, y, past_context = _locate(self._context, context_tokens)
        corner = i * self._columns + j
        near = self._values.take(corner)
        near = near + y * (self._values.take(corner + 1) - near)
        corner = corner + self._columns
        far = self._values.take(corner)
        far = far + y * (self._values.take(corner + 1) - far)
        inside: V = near + x * (far - near)
        beyond: V = self._slopes[0] * past_rows + self._slopes[1] * past_context
        return inside + beyond


def _locate(grid: Floats, value: Any) -> tuple[Any, Any, Any]:
    """Cell, position inside it (0 to 1), and how far beyond the grid, for scalars and arrays."""
    clipped = np.minimum(value, grid[-1])
    cell = np.minimum(grid.searchsorted(clipped, side="right"), len(grid) - 1) - 1
    left = grid.take(cell)
    return cell, (clipped - left) / (grid.take(cell + 1) - left), value - clipped


def monotone(values: Floats, least_step: Floats) -> Floats:
    """The nearest thing to ``values`` that never grows by less than ``least_step`` along an axis.

    The mean of two envelopes, the running maximum from below and the running minimum from above:
    each is monotone, so their mean is, and unlike the maximum alone it does not let one
    overestimated corner lift all that lies beyond it.

    Args:
        values: shape ``(r, c)``.
        least_step: shape ``(r, c)``, non-decreasing along both axes: the floor under the growth.
    """
    rest = values - least_step
    above = np.maximum.accumulate(np.maximum.accumulate(rest, axis=0), axis=1)
    flipped = rest[::-1, ::-1]
    below = np.minimum.accumulate(np.minimum.accumulate(flipped, axis=0), axis=1)[::-1, ::-1]
    middle: Floats = (above + below) / 2 + least_step
    return middle
