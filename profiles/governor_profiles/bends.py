"""Where a GPU's decode times leave the straight line: captured graphs, tiles, long context."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from typing import Annotated

import msgspec
from msgspec import Meta

MAX_GRAPHS = 512
"""Captured batch sizes; as many as the wire contract carries."""

_Cost = Annotated[float, Meta(ge=0, le=60)]
_Rows = Annotated[int, Meta(ge=1, le=1 << 20)]


class Bends(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Adds steps and a knee to the linear form of a profile; each part may be left out.

    Raises:
        ValueError: ``graph_rows`` do not rise, or a cost stands without its place.
    """

    graph_rows: Annotated[tuple[_Rows, ...], Meta(max_length=MAX_GRAPHS)] = ()
    """Batch sizes with a captured graph, rising: a batch takes as long as the next of these.
    Batches beyond the last are not padded."""
    tile_rows: Annotated[int, Meta(ge=0, le=1 << 20)] = 0
    """Rows that one tile of a matrix product holds; 0: no tiles."""
    tile_s: _Cost = 0.0
    """s per tile that is started, on top of the cost per row."""
    knee_tokens: Annotated[int, Meta(ge=0, le=1 << 40)] = 0
    """Summed context from which on a token costs more."""
    knee_token_s: _Cost = 0.0
    """s per context token beyond ``knee_tokens``, on top of the cost of every token."""

    def __post_init__(self) -> None:
        if any(b <= a for a, b in pairwise(self.graph_rows)):
            raise ValueError(
                f"bends.graph_rows must rise from entry to entry, got {list(self.graph_rows[:8])}"
            )
        if self.tile_s and not self.tile_rows:
            raise ValueError("bends.tile_s needs bends.tile_rows: say how many rows a tile holds")

    def padded(self, rows: float) -> float:
        """Rows that the device computes for a batch of ``rows``."""
        sizes = self.graph_rows
        if rows <= 0 or not sizes or rows > sizes[-1]:
            return rows
        return sizes[bisect_left(sizes, rows)]

    def extra_s(self, padded_rows: float, context_tokens: float) -> float:
        """Time in s beyond the straight line.

        Args:
            padded_rows: see :meth:`padded`.
            context_tokens: summed context of the batch.
        """
        extra_s = 0.0
        if self.tile_rows:
            extra_s = self.tile_s * -(-padded_rows // self.tile_rows)
        if context_tokens > self.knee_tokens:
            extra_s += self.knee_token_s * (context_tokens - self.knee_tokens)
        return extra_s
