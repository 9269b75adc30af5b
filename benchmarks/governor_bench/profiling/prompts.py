"""Token ids of the rows: different in every row, the same from point to point."""

from __future__ import annotations

import numpy as np

FIRST_ID = 3
"""Lower ids are special tokens in most vocabularies."""
ROWS, FRESH = 0, 1


class Prompts:
    """Draws ids below ``vocabulary``.

    Args:
        run: a number that no earlier run against the engine has used, so that prompts whose
            prefill is measured are in nobody's cache.

    Raises:
        ValueError: there is no id to draw from.
    """

    def __init__(self, vocabulary: int, run: int) -> None:
        if vocabulary <= FIRST_ID:
            raise ValueError(f"vocabulary: {vocabulary} ids are too few; use more than {FIRST_ID}")
        self._vocabulary = vocabulary
        self._run = run
        self._drawn = 0

    def of_row(self, row: int, tokens: int) -> list[int]:
        """The first ``tokens`` ids of a row's text; longer ones begin with the shorter ones."""
        return self._draw((ROWS, row), tokens)

    def fresh(self, tokens: int) -> list[int]:
        """Ids that share no prefix with any other prompt."""
        self._drawn += 1
        return self._draw((FRESH, self._run, self._drawn), tokens)

    def _draw(self, seed: tuple[int, ...], tokens: int) -> list[int]:
        rng = np.random.Generator(np.random.PCG64(seed))
        ids: list[int] = rng.integers(FIRST_ID, self._vocabulary, tokens).tolist()
        return ids
