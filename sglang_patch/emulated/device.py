"""The emulated device: one queue of steps, worked through in order. Pure; reads no clock."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class EmulatedDevice:
    """Time line of a device that starts a step once it is launched and the one before is done."""

    end_s: float = float("-inf")
    """When all that was launched is done, on the caller's clock."""
    steps: int = 0
    busy_s: float = 0.0
    host_limited_steps: int = 0
    """Steps that the engine launched too late to keep the device busy."""
    host_limited_s: float = 0.0
    """Time for which the device stood still because of that."""

    def enqueue(self, duration_s: float, now_s: float, *, follows: bool) -> float:
        """Launch a step.

        Args:
            duration_s: how long the device will work on it.
            now_s: the time of the launch; never before that of an earlier launch.
            follows: whether the engine had a batch just before, so that a device that has run dry
                has waited for the host and not for requests.

        Returns:
            When the step is done.
        """
        idle_s = now_s - self.end_s
        if idle_s > 0 and follows and self.steps:
            self.host_limited_steps += 1
            self.host_limited_s += idle_s
        self.steps += 1
        self.busy_s += duration_s
        self.end_s = max(now_s, self.end_s) + duration_s
        return self.end_s
