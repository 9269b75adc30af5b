"""Waiting for the emulated device as SGLang waits for a real one."""

from __future__ import annotations

import time

SPIN_S = 100e-6
"""Waited in a loop at the end, since a sleep returns about this late."""


def clock_s() -> float:
    """The clock that the emulated device lives on."""
    return time.perf_counter()


def wait_until(end_s: float) -> None:
    """Sleep until ``end_s`` on :func:`clock_s`."""
    remaining_s = end_s - clock_s()
    if remaining_s > SPIN_S:
        time.sleep(remaining_s - SPIN_S)
    while clock_s() < end_s:
        pass


class DeviceEvent:
    """Stands in for the event that SGLang records when a step's results are on the host.

    Args:
        end_s: when the device is done with the step.
    """

    __slots__ = ("_end_s",)

    def __init__(self, end_s: float) -> None:
        self._end_s = end_s

    def record(self) -> None:
        """Do nothing: the device's time line knows when the step ends."""

    def query(self) -> bool:
        return clock_s() >= self._end_s

    def synchronize(self) -> None:
        wait_until(self._end_s)
