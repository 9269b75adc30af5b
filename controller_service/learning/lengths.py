"""How many tokens a request will still write: survival curves with censoring.

Requests that ran into their limit or were aborted would have gone on: they count as "at least so
long" (right-censored), and the curve is Kaplan and Meier's estimator (1958). A regime is a coarse
bucket of prompt length and of ``max_new_tokens``; one of which little is known is pulled towards
the curve of all requests.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import CensoredData, ecdf

from controller_service.learning.arrays import floats, pack, unpack
from controller_service.learning.curves import Cells, Curves
from controller_service.learning.ends import Column, EndColumns, ended_by_itself
from controller_service.predictors.base import Floats

LEAST_REQUESTS = 30
"""Fewer ended requests make no model."""
PRIOR_REQUESTS = 20.0
"""The curve of all requests counts in each regime as much as this many of its own."""
MOST_TOKENS = 1 << 20
RATIO = 1.08
"""Between neighbouring points of a curve."""
MOST_REGIMES = 1024


class LengthModel:
    """Survival curves of output length, by regime."""

    def __init__(self, tokens: Floats, keys: Floats, survival: Floats) -> None:
        """
        Args:
            tokens: rising from 0, shape ``(k,)``.
            keys: regimes, rising, shape ``(g,)``.
            survival: share of requests longer than each of ``tokens``, shape ``(g + 1, k)``; the
                first is of all requests.

        Raises:
            ValueError: shapes disagree, or a curve rises or leaves 0 to 1.
        """
        if survival.shape != (len(keys) + 1, len(tokens)) or len(tokens) < 2:
            raise ValueError("a length model needs one curve a regime, and one more")
        if tokens[0] or (np.diff(tokens) <= 0).any() or (np.diff(keys) <= 0).any():
            raise ValueError("tokens and regimes of a length model must rise, tokens from 0")
        falling = (np.diff(survival, axis=1) <= 0).all()
        if not falling or survival.min() < 0 or survival.max() > 1:
            raise ValueError("a survival curve falls, within 1 and 0")
        self._tokens, self._keys, self._survival = tokens, keys, survival
        self._index = {int(key): index + 1 for index, key in enumerate(keys)}
        self.curves = Curves(tokens, survival)

    @property
    def regimes(self) -> int:
        return len(self._keys)

    def remaining(
        self, prompt_tokens: int, max_new_tokens: int, output_tokens: int, quantile: float = 0.5
    ) -> float:
        """Tokens still to come, such that this share of like requests, as far along, has no more.

        Args:
            output_tokens: written so far.
            quantile: above 0, below 1.

        Returns:
            At most what ``max_new_tokens`` allows; that, where nobody is known who got further.

        Raises:
            ValueError: ``quantile`` is not between 0 and 1.
        """
        if not 0 < quantile < 1:
            raise ValueError(f"a quantile lies between 0 and 1, not {quantile}")
        most = float(max(max_new_tokens - output_tokens, 0))
        curve = self._survival[self._index.get(_key(prompt_tokens, max_new_tokens), 0)]
        alive = float(np.interp(output_tokens, self._tokens, curve))
        wanted = (1.0 - quantile) * alive
        if wanted <= curve[-1] or alive <= 0:
            return most
        # np.interp needs rising positions: read the falling curve from its end.
        total = float(np.interp(wanted, curve[::-1], self._tokens[::-1]))
        return min(max(total - output_tokens, 0.0), most)

    def cells(self, prompt_tokens: Column, max_new_tokens: Column) -> Cells:
        """Which of ``curves`` is that of each of such requests; all of shape ``(n,)``."""
        keys = _keys(prompt_tokens, max_new_tokens)
        if not len(self._keys):
            return np.zeros(len(keys), dtype=np.intp)
        place = np.minimum(self._keys.searchsorted(keys), len(self._keys) - 1)
        return np.where(self._keys[place] == keys, place + 1, 0)

    def to_bytes(self) -> bytes:
        return pack({"tokens": self._tokens, "keys": self._keys, "survival": self._survival})

    @classmethod
    def from_bytes(cls, data: bytes) -> LengthModel:
        """
        Raises:
            ValueError: these are no length model.
        """
        arrays = unpack(data, "lengths.npz")
        return cls(
            floats(arrays, "tokens", 1), floats(arrays, "keys", 1), floats(arrays, "survival", 2)
        )


def fit_lengths(ends: EndColumns) -> LengthModel | None:
    """
    Returns:
        None when fewer than ``LEAST_REQUESTS`` requests ended, or none by itself.
    """
    length = np.minimum(ends.output_tokens.astype(np.float64), MOST_TOKENS)
    stopped = ended_by_itself(ends)
    if len(length) < LEAST_REQUESTS or not stopped.any():
        return None
    tokens = _grid(float(length.max()))
    overall = _survival(length, stopped, tokens)
    place = _keys(ends.prompt_tokens, ends.max_new_tokens)
    keys, counts = np.unique(place, return_counts=True)
    keys = np.sort(keys[np.argsort(-counts, kind="stable")[:MOST_REGIMES]])
    curves = [overall]
    for key in keys:
        inside = place == key
        own = _survival(length[inside], stopped[inside], tokens)
        share = inside.sum() / (inside.sum() + PRIOR_REQUESTS)
        curves.append(share * own + (1.0 - share) * overall)
    return LengthModel(tokens, keys.astype(np.float64), np.minimum(np.array(curves), 1.0))


def _grid(longest: float) -> Floats:
    points = int(np.log(max(longest, 2.0)) / np.log(RATIO)) + 2
    spaced = np.rint(np.geomspace(1.0, max(longest, 2.0), points))
    return np.unique(np.concatenate([[0.0], spaced]))


def _survival(length: Floats, stopped: Column, tokens: Floats) -> Floats:
    """Kaplan-Meier at ``tokens``; where everybody was cut off, nobody is known to end."""
    if not stopped.any():
        return np.ones(len(tokens))
    data = CensoredData(uncensored=length[stopped], right=length[~stopped])
    found: Floats = np.asarray(ecdf(data).sf.evaluate(tokens), dtype=np.float64)
    return np.clip(found, 0.0, 1.0)


def _keys(prompt_tokens: Column, max_new_tokens: Column) -> Column:
    prompt, most = (_bit_length(column) for column in (prompt_tokens, max_new_tokens))
    return (prompt + 1) // 2 << 8 | most


def _bit_length(values: Column) -> Column:
    """As ``int.bit_length``."""
    return np.frexp(np.asarray(values, dtype=np.float64))[1].astype(np.int64)


def _key(prompt_tokens: int, max_new_tokens: int) -> int:
    """Powers of four of the prompt, powers of two of the limit."""
    return (prompt_tokens.bit_length() + 1) // 2 << 8 | max_new_tokens.bit_length()
