"""How long Governor holds the scheduler in a step, and whether that was its own doing.

A step is held in several stretches, one for each seam. On a shared machine a stretch may take long
because something else ran meanwhile; the kernel tells the two apart. *Own* is what the thread
computed and the pauses that it asked for. A stretch in which the thread gave the processor up more
often than it asked to was blocked (a lock, a socket, a disk), and all of it counts as own. There is
one exception. On a machine short of memory the kernel blocks a thread wherever it touches a page
that has to be read from disk first, and counts that as a major page fault. In a stretch with a
major fault no blocking counts as own: the kernel does not tell how long each block was.

Two things are measured and not judged. *Carrying out* is SGLang's own work on its batches that an
order asks for: retraction, and the cut and the merge of a batch. And Python's garbage collector
runs where the process happens to make its next object, most of which are not Governor's.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from resource import RUSAGE_THREAD, getrusage
from threading import get_ident
from time import perf_counter, thread_time
from types import TracebackType
from typing import NamedTuple

TOLERANCE = 1.5
"""A step is stalled where it was held for longer than this many times what it may be."""
LEAST_LIMIT_S = 1e-3
"""Of a whole step's hold: with ``max_wait_ms`` 0 Governor still has to compute."""


class Hold(NamedTuple):
    """What Governor took of one step."""

    wall_s: float
    """All of it."""
    own_s: float
    """Computed, paused as asked, or blocked; without what other programs took, what was carried out
    and what the collector took."""
    carried_out_s: float
    """Wall time of carrying out."""
    is_stalled: bool
    """Held for longer than it may, by its own doing."""
    is_disturbed: bool
    """Held for longer than it may, because something else had the processor or memory was short."""


_Mark = tuple[float, float, float, float]
"""Wall time, CPU time of the thread, how often it gave the processor up of its own accord, and how
often a page that it touched had to be read from disk."""

_READ_IN = 7
"""Place of ``ru_majflt`` in what ``getrusage`` returns."""
_GIVEN_UP = 14
"""Place of ``ru_nvcsw`` in what ``getrusage`` returns."""


def _mark() -> _Mark:
    used = getrusage(RUSAGE_THREAD)
    return perf_counter(), thread_time(), used[_GIVEN_UP], used[_READ_IN]


class HoldMeter:
    """Adds up the stretches of each step. Some 3 us a stretch.

    Args:
        max_wait_s: longest that the engine's setting lets a step wait for a decision.
        on_hold: told of each step once it is over.

    It belongs to the thread that makes it.
    """

    def __init__(self, max_wait_s: float, on_hold: Callable[[Hold], None]) -> None:
        self._limit_s = TOLERANCE * max(max_wait_s, LEAST_LIMIT_S)
        self._on_hold = on_hold
        self.carrying_out = _CarryingOut(self)
        """Around SGLang's own work that an order asks for."""
        self._began: _Mark | None = None
        self._thread = get_ident()
        self._collection_began_s = 0.0
        self._collected_s = 0.0
        self._wait_began: _Mark | None = None
        self._wall_s = 0.0
        self._own_s = 0.0
        self._carried_out_s = 0.0
        self._pauses = 0
        self._paused_s = 0.0
        self._waited_too_long = False
        self._wait_was_disturbed = False

    def __enter__(self) -> None:
        """Governor has the scheduler's thread. Stretches do not nest."""
        self._collected_s = 0.0
        self._began = _mark()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """It gives it back."""
        began, self._began = self._began, None
        if began is None:
            return
        wall_s, own_s = _passed(began, self._pauses, self._paused_s)
        self._pauses, self._paused_s = 0, 0.0
        self._wall_s += wall_s
        self._own_s += max(0.0, own_s - self._collected_s)

    def begin_wait(self) -> None:
        """Inside a stretch: it is going to wait for a decision."""
        self._wait_began = _mark()

    def end_wait(self, pauses: int, paused_s: float, longest_s: float) -> None:
        """The wait is over.

        Args:
            pauses: how often it slept.
            paused_s: for how long it asked to, in all.
            longest_s: how long it was allowed to wait.
        """
        if not pauses or self._wait_began is None:
            return
        self._pauses, self._paused_s = pauses, paused_s
        wall_s, own_s = _passed(self._wait_began, pauses, paused_s)
        limit_s = TOLERANCE * longest_s
        self._waited_too_long = own_s > limit_s
        self._wait_was_disturbed = wall_s > limit_s

    def carried_out(self, wall_s: float) -> None:
        """An order was carried out; not within a stretch."""
        self._carried_out_s += wall_s

    def watch_collector(self) -> None:
        """Leave Python's garbage collector out, from now on and for good."""
        gc.callbacks.append(self._on_collection)

    def _on_collection(self, phase: str, info: dict[str, int]) -> None:
        if self._began is None or get_ident() != self._thread:
            return
        if phase == "start":
            self._collection_began_s = thread_time()
        else:
            self._collected_s += thread_time() - self._collection_began_s

    def step_over(self) -> None:
        """No stretch of this step follows. Nothing is told of a step that was not held."""
        wall_s = self._wall_s + self._carried_out_s
        if wall_s:
            stalled = self._waited_too_long or self._own_s > self._limit_s
            long = self._wait_was_disturbed or self._wall_s > self._limit_s
            disturbed = long and not stalled
            self._on_hold(Hold(wall_s, self._own_s, self._carried_out_s, stalled, disturbed))
        self._wall_s = self._own_s = self._carried_out_s = 0.0
        self._waited_too_long = self._wait_was_disturbed = False


class _CarryingOut:
    __slots__ = ("_began_s", "_meter")

    def __init__(self, meter: HoldMeter) -> None:
        self._meter = meter
        self._began_s = 0.0

    def __enter__(self) -> None:
        self._began_s = perf_counter()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._meter.carried_out(perf_counter() - self._began_s)


def _passed(began: _Mark, pauses: int, paused_s: float) -> tuple[float, float]:
    """Wall time since ``began``, and how much of it is own."""
    wall_s, cpu_s, given_up, read_in = _mark()
    wall_s -= began[0]
    if given_up - began[2] > pauses and read_in == began[3]:
        return wall_s, wall_s
    return wall_s, min(wall_s, cpu_s - began[1] + paused_s)
