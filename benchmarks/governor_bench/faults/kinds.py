"""The kinds of faults, and how many of each took effect."""

from __future__ import annotations

import threading
from collections import Counter
from enum import StrEnum


class Kind(StrEnum):
    """A name in the report. ``FRAME_*`` are done to frames on the wire, in both directions."""

    FRAME_DELAY = "frame_delay"
    FRAME_DROP = "frame_drop"
    FRAME_DUPLICATE = "frame_duplicate"
    FRAME_REORDER = "frame_reorder"
    FRAME_TRUNCATE = "frame_truncate"
    FRAME_FLIP = "frame_flip"
    """Bits are turned over."""
    FRAME_LIE = "frame_lie"
    """Well-formed, and untrue or absurd."""
    FRAME_REPLAY = "frame_replay"
    """A frame of some time ago comes again in the place of the new one."""
    CONTROLLER_KILLED = "controller_killed"
    CONTROLLER_STOPPED = "controller_stopped"
    CONTROLLER_SLOW = "controller_slow"
    """Stopped for some milliseconds, over and over."""
    CONTROLLER_RESTARTED = "controller_restarted"
    CONTROLLER_OUT_OF_MEMORY = "controller_out_of_memory"
    CONTROLLER_DISK_FULL = "controller_disk_full"
    SECOND_CONTROLLER = "second_controller"
    STALE_SOCKET = "stale_socket"
    EMBEDDED_CONTROLLER_KILLED = "embedded_controller_killed"
    ENGINE_KILLED = "engine_killed"
    SAME_IDENTITY = "same_identity"
    ENGINE_CLOCK = "engine_clock"
    CONTROLLER_CLOCK = "controller_clock"


class Faults:
    """Counts by kind; from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[Kind] = Counter()

    def add(self, kind: Kind, count: int = 1) -> None:
        """So many faults took effect."""
        with self._lock:
            self._counts[kind] += count

    def counts(self) -> dict[str, int]:
        """Of every kind, in the order of :class:`Kind`."""
        with self._lock:
            return {kind.value: self._counts[kind] for kind in Kind}

    @property
    def total(self) -> int:
        with self._lock:
            return self._counts.total()
