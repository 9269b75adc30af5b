"""Survival curves of output length in fine cells of prompt and limit, as trees gave them."""

from __future__ import annotations

import numpy as np

from controller_service.learning.arrays import floats, pack, unpack
from controller_service.learning.curves import Cells, Curves
from controller_service.learning.ends import Column
from controller_service.predictors.base import Floats

PROMPTS_PER_OCTAVE, LIMITS_PER_OCTAVE = 4, 2
OCTAVES = 18


class HazardTable:
    """Survival curves by prompt and limit, compiled from trees.

    Args:
        tokens: rising from 0, shape ``(k,)``.
        survival: shape ``(cells, k)``, see :class:`~.curves.Curves`.

    Raises:
        ValueError: shapes disagree, or a curve rises or leaves 0 to 1.
    """

    def __init__(self, tokens: Floats, survival: Floats) -> None:
        cells = (PROMPTS_PER_OCTAVE * OCTAVES + 1) * (LIMITS_PER_OCTAVE * OCTAVES + 1)
        if survival.shape != (cells, len(tokens)) or len(tokens) < 2:
            raise ValueError(f"a hazard table needs {cells} curves of equal length")
        if tokens[0] or (np.diff(tokens) <= 0).any():
            raise ValueError("tokens of a hazard table must rise from 0")
        if (np.diff(survival, axis=1) > 0).any() or survival.min() < 0 or survival.max() > 1:
            raise ValueError("a survival curve falls, within 1 and 0")
        self._tokens, self._survival = tokens, survival
        self.curves = Curves(tokens, survival)

    def cells(self, prompt_tokens: Column, max_new_tokens: Column) -> Cells:
        """Which of ``curves`` is that of each of such requests; all of shape ``(n,)``."""
        prompt = _place(prompt_tokens, PROMPTS_PER_OCTAVE)
        limit = _place(max_new_tokens, LIMITS_PER_OCTAVE)
        found: Cells = prompt * (LIMITS_PER_OCTAVE * OCTAVES + 1) + limit
        return found

    def to_bytes(self) -> bytes:
        return pack({"tokens": self._tokens, "survival": self._survival})

    @classmethod
    def from_bytes(cls, data: bytes) -> HazardTable:
        """
        Raises:
            ValueError: these are no hazard table.
        """
        arrays = unpack(data, "hazards.npz")
        return cls(floats(arrays, "tokens", 1), floats(arrays, "survival", 2))


def _place(tokens: Column, per_octave: int) -> Cells:
    """The nearest of the cells of prompts, or of limits."""
    octaves = np.log2(np.maximum(np.asarray(tokens, dtype=np.float64), 1.0))
    place: Cells = np.clip(np.rint(octaves * per_octave), 0, per_octave * OCTAVES).astype(np.intp)
    return place
