"""Survival curves of output length, read for many requests at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from controller_service.predictors.base import Floats

Cells = npt.NDArray[np.intp]

LEAST_ALIVE = 1e-6
"""Share of requests that got as far, from which on a curve says nothing of those who did."""


class Curves:
    """Shares of requests that are longer than so many tokens, one curve a cell.

    Straight between its points; from the last on a curve stays where it is.

    Args:
        tokens: rising from 0, shape ``(k,)``.
        survival: falling along the second axis, within 1 and 0, shape ``(cells, k)``.
    """

    def __init__(self, tokens: Floats, survival: Floats) -> None:
        self._tokens, self._survival = tokens, survival
        middle = 0.5 * (survival[:, 1:] + survival[:, :-1]) * np.diff(tokens)
        self._area = np.concatenate([np.zeros((len(survival), 1)), middle.cumsum(axis=1)], axis=1)

    def expected(self, cells: Cells, output_tokens: Floats, limit_tokens: Floats) -> Floats:
        """Mean of the tokens still to come, of requests that have written so many and may write
        ``limit_tokens`` in all. All of shape ``(n,)``.

        Who got further than anybody known is expected to write as much again.
        """
        most = np.maximum(limit_tokens - output_tokens, 0.0)
        alive, before = self._at(cells, output_tokens)
        _, until = self._at(cells, np.maximum(limit_tokens, output_tokens))
        mean = (until - before) / np.maximum(alive, LEAST_ALIVE)
        known = alive > LEAST_ALIVE
        found: Floats = np.minimum(np.where(known, mean, output_tokens), most)
        return found

    def quantile(
        self, cells: Cells, output_tokens: Floats, limit_tokens: Floats, quantile: float
    ) -> Floats:
        """Likewise, tokens still to come such that this share of such requests has no more."""
        most = np.maximum(limit_tokens - output_tokens, 0.0)
        alive, _ = self._at(cells, output_tokens)
        wanted = (1.0 - quantile) * alive
        curves = self._survival[cells]
        after = np.count_nonzero(curves > wanted[:, None], axis=1)
        ends = after < len(self._tokens)
        after = np.clip(after, 1, len(self._tokens) - 1)
        each = np.arange(len(cells))
        high, low = curves[each, after - 1], curves[each, after]
        step = self._tokens[after] - self._tokens[after - 1]
        into = np.clip((high - wanted) / np.maximum(high - low, LEAST_ALIVE), 0.0, 1.0)
        total = self._tokens[after - 1] + into * step
        found = np.where(ends, np.maximum(total - output_tokens, 0.0), most)
        told: Floats = np.minimum(np.where(alive > LEAST_ALIVE, found, output_tokens), most)
        return told

    def alive(self, cells: Cells, tokens: Floats) -> Floats:
        """Share of the requests of each cell that are longer than so many tokens."""
        return self._at(cells, tokens)[0]

    def _at(self, cells: Cells, tokens: Floats) -> tuple[Floats, Floats]:
        """Height of each curve at ``tokens``, and the area below it up to there."""
        place = np.clip(self._tokens.searchsorted(tokens, side="right") - 1, 0, None)
        following = np.minimum(place + 1, len(self._tokens) - 1)
        width = np.maximum(self._tokens[following] - self._tokens[place], 1.0)
        beyond = tokens - self._tokens[place]
        left = self._survival[cells, place]
        slope = (self._survival[cells, following] - left) / width
        height = left + slope * beyond
        return height, self._area[cells, place] + beyond * (left + height) / 2.0
