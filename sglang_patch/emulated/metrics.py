"""Prometheus metrics of the emulated device, on the engine's own ``/metrics``.

Import this only after SGLang has set the Prometheus client up for many processes.
"""

from __future__ import annotations

import prometheus_client

from sglang_patch.emulated.device import EmulatedDevice
from sglang_patch.emulated.waiting import clock_s

PUBLISH_INTERVAL_S = 0.5


class DeviceMetrics:
    """Counters of one emulated device, brought up to date twice a second."""

    def __init__(self, scale: float, dp_rank: int) -> None:
        self._labels = {"dp_rank": str(dp_rank)}
        self._counters = {
            "steps": self._counter("steps", "Steps that the emulated device has run"),
            "busy_s": self._counter("busy_seconds", "Time for which it worked, scaled"),
            "host_limited_steps": self._counter(
                "host_limited_steps", "Steps launched too late to keep it busy"
            ),
            "host_limited_s": self._counter(
                "host_limited_seconds", "Time for which it stood still because of that"
            ),
        }
        self._shown = dict.fromkeys(self._counters, 0.0)
        self._next_s = 0.0
        prometheus_client.Gauge(
            "governor_emulated_scale",
            "Every step lasts this many times what the profile says",
            ["dp_rank"],
            multiprocess_mode="mostrecent",
        ).labels(**self._labels).set(scale)

    def publish(self, device: EmulatedDevice) -> None:
        """Publish what was counted since the last time, if it is time."""
        if clock_s() < self._next_s:
            return
        self._next_s = clock_s() + PUBLISH_INTERVAL_S
        for name, counter in self._counters.items():
            total = float(getattr(device, name))
            counter.inc(total - self._shown[name])
            self._shown[name] = total

    def _counter(self, name: str, text: str) -> prometheus_client.Counter:
        counter = prometheus_client.Counter("governor_emulated_" + name, text, ["dp_rank"])
        return counter.labels(**self._labels)
