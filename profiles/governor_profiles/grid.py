"""Measured decode step times over rows and summed context."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import msgspec
from msgspec import Meta

MAX_POINTS = 1024
"""Points along one axis."""

Seconds = Annotated[float, Meta(gt=0, le=3600)]
_Axis = Annotated[list[Annotated[int, Meta(ge=0, le=1 << 40)]], Meta(min_length=2, max_length=1024)]


class Grid(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Step times of pure decode, on a grid.

    Raises:
        ValueError: an axis does not rise, sizes disagree, or a time falls as work grows.
    """

    rows: _Axis
    """Rows of the batch, rising."""
    context_tokens: _Axis
    """Summed context of the batch in tokens, rising."""
    seconds: Annotated[
        list[Annotated[list[Seconds], Meta(max_length=MAX_POINTS)]], Meta(max_length=MAX_POINTS)
    ]
    """``seconds[i][j]``: step time in s at ``rows[i]`` and ``context_tokens[j]``."""

    def __post_init__(self) -> None:
        for name, axis in (("rows", self.rows), ("context_tokens", self.context_tokens)):
            if any(b <= a for a, b in pairwise(axis)):
                raise ValueError(f"grid.{name} must rise from point to point, got {axis[:8]}")
        if len(self.seconds) != len(self.rows):
            raise ValueError(
                f"grid.seconds has {len(self.seconds)} lines for {len(self.rows)} entries of rows"
            )
        for index, line in enumerate(self.seconds):
            if len(line) != len(self.context_tokens):
                raise ValueError(
                    f"grid.seconds[{index}] has {len(line)} entries for "
                    f"{len(self.context_tokens)} of context_tokens"
                )
            _require_rising(line, f"grid.seconds[{index}]", "context")
        for column in range(len(self.context_tokens)):
            line = [values[column] for values in self.seconds]
            _require_rising(line, f"grid.seconds[*][{column}]", "rows")

    def interpolate(self, rows: float, context_tokens: float) -> tuple[float, float, float]:
        """Bilinear value at the nearest point of the grid's area.

        Returns:
            Seconds; rows beyond the area (negative below it); context tokens beyond the area.
        """
        low, across = _place(self.rows, rows)
        left, along = _place(self.context_tokens, context_tokens)
        near, far = self.seconds[low], self.seconds[low + 1]
        value = (1 - across) * ((1 - along) * near[left] + along * near[left + 1]) + across * (
            (1 - along) * far[left] + along * far[left + 1]
        )
        return value, _excess(self.rows, rows), _excess(self.context_tokens, context_tokens)


def _place(axis: Sequence[int], at: float) -> tuple[int, float]:
    """Interval of ``axis`` that holds ``at``, and the share of it that lies before ``at``."""
    index = min(max(bisect_right(axis, at) - 1, 0), len(axis) - 2)
    share = (at - axis[index]) / (axis[index + 1] - axis[index])
    return index, min(max(share, 0.0), 1.0)


def _excess(axis: Sequence[int], at: float) -> float:
    return at - min(max(at, axis[0]), axis[-1])


def _require_rising(line: Sequence[float], name: str, along: str) -> None:
    if any(b < a for a, b in pairwise(line)):
        raise ValueError(f"{name} falls as {along} grow: smooth the measurement before storing it")
