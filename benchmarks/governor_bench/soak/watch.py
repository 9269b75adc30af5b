"""What the two sides take up, read every few seconds."""

from __future__ import annotations

import msgspec
import psutil

from governor_bench.engine_metrics import GovernorCounters, read_counters
from governor_bench.servers import Controller, EmulatedEngine

SCHEDULER = "sglang::scheduler"


class Reading(msgspec.Struct, frozen=True):
    """One moment. ``scheduler`` is the engine's process in which Governor runs."""

    at_s: float
    controller_rss: int
    """Bytes."""
    scheduler_rss: int
    controller_files: int
    """Open file descriptors."""
    scheduler_files: int
    controller_threads: int
    scheduler_threads: int
    governed_steps: int
    """Since the engine's start; so for the next."""
    late_steps: int


class Watch:
    """Reads both sides' processes and the engine's counters.

    Raises:
        LookupError: the engine has no scheduler process.
    """

    def __init__(self, engine: EmulatedEngine, controller: Controller) -> None:
        self._engine_url = engine.url
        self._controller = psutil.Process(controller.pid)
        self._scheduler = _scheduler_of(psutil.Process(engine.pid))

    def read(self, at_s: float) -> Reading:
        counters = read_counters(self._engine_url)
        return Reading(
            at_s,
            self._controller.memory_info().rss,
            self._scheduler.memory_info().rss,
            self._controller.num_fds(),
            self._scheduler.num_fds(),
            self._controller.num_threads(),
            self._scheduler.num_threads(),
            counters.governed_steps,
            counters.governed_steps - _in_time(counters),
        )


def _in_time(counters: GovernorCounters) -> int:
    return counters.outcomes.get("applied", 0)


def _scheduler_of(launcher: psutil.Process) -> psutil.Process:
    for child in launcher.children(recursive=True):
        if any(SCHEDULER in part for part in (child.name(), *child.cmdline())):
            return child
    raise LookupError(f"process {launcher.pid} has no child named {SCHEDULER}")
