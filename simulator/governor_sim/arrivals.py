"""Rows that are on their way to the engine."""

from __future__ import annotations

import heapq
import itertools

from governor_sim.rows import SimRow


class Arrivals:
    """A queue in order of time; rows that arrive together keep the order in which they came in."""

    def __init__(self) -> None:
        self._queue: list[tuple[float, int, list[SimRow]]] = []
        self._order = itertools.count()

    def push(self, at_s: float, rows: list[SimRow]) -> None:
        heapq.heappush(self._queue, (at_s, next(self._order), rows))

    @property
    def next_s(self) -> float | None:
        """When the next rows arrive; None if none will."""
        return self._queue[0][0] if self._queue else None

    def take(self, now_s: float) -> list[SimRow]:
        """Rows that have arrived by ``now_s``."""
        taken: list[SimRow] = []
        while self._queue and self._queue[0][0] <= now_s:
            taken.extend(heapq.heappop(self._queue)[2])
        return taken
