"""A monotone table of step latency: what every model is compiled into, whatever it was fitted as.

At run time a prediction is a look-up: it costs the same for a line, for trees and for a table of
measurements, and it falls nowhere.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, cast

import numpy as np

from controller_service.predictors.base import Floats, V


class Surcharge:
    """What tokens of one more kind add to a step: ``f(tokens) + coupling * tokens * beside``.

    ``f`` is piecewise linear and 0 at 0; nothing in it falls. For prefill ``beside`` is the summed
    context, for draft tokens the rows.
    """

    def __init__(self, tokens: Floats, seconds: Floats, coupling: float) -> None:
        """
        Args:
            tokens: rising, shape ``(k,)``, at least two, starts at 0. Beyond the last, the last
                slope holds.
            seconds: not falling, shape ``(k,)``, starts at 0.
            coupling: s per token and unit of what is beside it; at least 0.

        Raises:
            ValueError: one of these does not hold.
        """
        if not (tokens.shape == seconds.shape == (len(tokens),) and len(tokens) > 1):
            raise ValueError("a surcharge needs two or more tokens, and seconds of the same shape")
        if tokens[0] or seconds[0] or (np.diff(tokens) <= 0).any() or (np.diff(seconds) < 0).any():
            raise ValueError("a surcharge starts at 0, and must not fall")
        if coupling < 0:
            raise ValueError(f"the coupling of a surcharge is at least 0, not {coupling}")
        self.tokens, self.seconds, self.coupling = tokens, seconds, coupling
        self._last_slope = float((seconds[-1] - seconds[-2]) / (tokens[-1] - tokens[-2]))

    def at(self, tokens: float | Floats, beside: float | Floats) -> Any:
        """Seconds, in the common shape of the arguments."""
        inside = np.interp(tokens, self.tokens, self.seconds)
        past = np.maximum(np.subtract(tokens, self.tokens[-1]), 0.0)
        return inside + self._last_slope * past + (self.coupling * tokens) * beside

    def scaled(self, factor: float) -> Surcharge:
        """``factor`` times as dear."""
        return Surcharge(self.tokens, self.seconds * factor, self.coupling * factor)

    @property
    def token_s(self) -> float:
        """Mean cost of a token over what was measured."""
        return float(self.seconds[-1] / self.tokens[-1])


class CompiledTable:
    """Step latency over every whole number of rows x summed context, and surcharges on top.

    Step times jump where a batch needs the next captured graph or one more tile. So every whole
    number of rows has a line of its own, found by index, and nothing is interpolated across rows;
    along the context it is linear between grid points. Beyond the grid it grows by ``slopes``.

    The grid is over *summed* context rather than context per row: adding a short row lowers the
    mean, so only in (rows, sum) does "never falling along both axes" mean that no added row, of
    any length, can have a negative cost.
    """

    def __init__(
        self,
        context: Floats,
        latency_s: Floats,
        slopes: tuple[float, float],
        prefill: Surcharge,
        draft: Surcharge,
    ) -> None:
        """
        Args:
            context: rising, shape ``(c,)``, starts at 0.
            latency_s: shape ``(r, c)``, seconds, above 0, for 0 to ``r - 1`` rows; must not fall
                along either axis.
            slopes: cost of a row and of a context token beyond the grid; seconds, at least 0.

        Raises:
            ValueError: one of these does not hold.
        """
        _check_grid(context, latency_s, slopes)
        self.context, self.latency_s, self.slopes = context, latency_s, slopes
        self.prefill, self.draft = prefill, draft
        rise = np.diff(latency_s, axis=1) / np.diff(context)
        beyond = np.full((len(latency_s), 1), slopes[1])
        self._last_row, self._columns = len(latency_s) - 1, len(context)
        self._values = np.ascontiguousarray(latency_s).ravel()
        self._rises = np.hstack([rise, beyond]).ravel()
        self._inner = np.ascontiguousarray(context[1:])
        self._listed: list[float] = context.tolist()

    def predict(
        self,
        rows: V,
        context_tokens: V,
        prefill_tokens: float | V = 0.0,
        draft_tokens: float | V = 0.0,
    ) -> V:
        """Seconds, in the shape of the arguments. ``rows`` are whole: a fraction is dropped."""
        seconds: Any
        if isinstance(rows, np.ndarray) or isinstance(context_tokens, np.ndarray):
            seconds = self._decode_all(np.asarray(rows), np.asarray(context_tokens))
        else:
            seconds = self._decode_one(rows, context_tokens)
        if isinstance(prefill_tokens, np.ndarray) or prefill_tokens:
            seconds = seconds + self.prefill.at(prefill_tokens, context_tokens)
        if isinstance(draft_tokens, np.ndarray) or draft_tokens:
            seconds = seconds + self.draft.at(draft_tokens, rows)
        return cast("V", seconds)

    def least_rows_s(self, most_rows: int) -> Floats:
        """Cumulated least cost of rows; see :class:`~.base.KnowsRowCost`."""
        least = np.diff(self.latency_s, axis=0).min(axis=1)[:most_rows]
        beyond = np.full(most_rows - len(least), self.slopes[0])
        return np.concatenate([[0.0], np.cumsum(np.concatenate([least, beyond]))])

    def _decode_all(self, rows: Floats, context_tokens: Floats) -> Floats:
        whole = rows.astype(np.intp)
        line = np.minimum(whole, self._last_row)
        column = self._inner.searchsorted(context_tokens, side="right")
        corner = line * self._columns + column
        along = context_tokens - self.context.take(column)
        seconds = self._values.take(corner) + self._rises.take(corner) * along
        beyond: Floats = seconds + self.slopes[0] * (whole - line)
        return beyond

    def _decode_one(self, rows: float, context_tokens: float) -> float:
        # NOTE: the same operations in the same order as above: a difference between one step and
        # an array of steps must not be negative by rounding.
        whole = int(rows)
        line = min(whole, self._last_row)
        column = bisect_right(self._listed, context_tokens, 1) - 1
        corner = line * self._columns + column
        along = context_tokens - self._listed[column]
        seconds = self._values.item(corner) + self._rises.item(corner) * along
        return float(seconds + self.slopes[0] * (whole - line))


def _check_grid(context: Floats, latency_s: Floats, slopes: tuple[float, float]) -> None:
    if context.ndim != 1 or latency_s.ndim != 2 or latency_s.shape[1] != len(context):
        raise ValueError("a table needs one context per column of its latencies")
    if len(context) < 2 or len(latency_s) < 2 or context[0] or (np.diff(context) <= 0).any():
        raise ValueError("a table needs two rows and two rising contexts, the first of them 0")
    if not (np.isfinite(latency_s).all() and (latency_s > 0).all() and min(slopes) >= 0):
        raise ValueError("latencies of a table are above 0, its slopes at least 0, all finite")
    if (np.diff(latency_s, axis=0) < 0).any() or (np.diff(latency_s, axis=1) < 0).any():
        raise ValueError("a table's latency falls where work is added")


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
