"""Garbage collection off the hot path.

Left alone, Python collects whenever enough objects were made, which is in the middle of a decision,
and walks every module that was ever imported: milliseconds, at the worst moment. Here everything
that start-up made is frozen (never walked again), automatic collection is off, and the loop
collects by itself between turns: young objects every second, all of them when nothing is going on,
or after a minute at the latest. Decisions make no reference cycles, so little is ever found.
"""

from __future__ import annotations

import gc
from types import TracebackType

YOUNG_EVERY_S = 1.0
ALL_WHEN_IDLE_EVERY_S = 10.0
ALL_AT_LATEST_S = 60.0


class Garbage:
    """While entered, collections happen in :meth:`collect_if_due` alone."""

    def __init__(self) -> None:
        self._young_s = 0.0
        self._all_s = 0.0

    def __enter__(self) -> Garbage:
        gc.collect()
        gc.freeze()
        gc.disable()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        gc.enable()
        gc.unfreeze()

    def collect_if_due(self, now_s: float, *, idle: bool) -> None:
        if now_s - self._all_s >= (ALL_WHEN_IDLE_EVERY_S if idle else ALL_AT_LATEST_S):
            self._all_s = self._young_s = now_s
            gc.collect()
        elif now_s - self._young_s >= YOUNG_EVERY_S:
            self._young_s = now_s
            gc.collect(0)
