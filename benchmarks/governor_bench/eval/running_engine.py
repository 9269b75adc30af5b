"""What tier E asks of a running engine and its controller between two runs."""

from __future__ import annotations

import time
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from governor_bench.engine_metrics import MAX_BYTES
from governor_bench.servers import Controller, EmulatedEngine

PUBLISHED_AFTER_S = 1.5
"""After which the engine's metrics are up to date."""
DRAIN_S = 30.0


def make_idle(engine: EmulatedEngine, *, keep_cache: bool = False) -> None:
    """Wait until nothing runs, and empty the prefix cache: the same prompts come again under the
    next policy, and must not find themselves cached.

    Args:
        keep_cache: leave the prefix cache as it is, for workloads whose prompts do not come again.

    Raises:
        TimeoutError: it still works long after the load was cut off.
    """
    deadline_s = time.monotonic() + DRAIN_S * engine.scale
    while _running(engine.url):
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"the engine still works {DRAIN_S:g} s after the load was cut off")
        time.sleep(0.2)
    if keep_cache:
        return
    request = urllib.request.Request(f"{engine.url}/flush_cache", method="POST")  # noqa: S310
    with urllib.request.urlopen(request, timeout=30):  # noqa: S310 - our own URL
        pass


def device_counters(url: str) -> dict[str, float]:
    """Totals of the emulated device, by metric."""
    return {
        name: value
        for name, value in _metrics(url).items()
        if name.startswith("governor_emulated_") and name.endswith("_total")
    }


def since_then(before: dict[str, float], now: dict[str, float]) -> dict[str, float]:
    """What was counted between two readings."""
    return {name: now[name] - before.get(name, 0.0) for name in now}


def host_share(spent: dict[str, float]) -> float:
    """Share of its time for which the device stood still because the host was late."""
    lost_s = spent.get("governor_emulated_host_limited_seconds_total", 0.0)
    busy_s = spent.get("governor_emulated_busy_seconds_total", 0.0)
    return lost_s / (busy_s + lost_s) if busy_s else 0.0


def last_step(controller: Controller) -> int:
    """Number of the newest step that the controller knows; -1 if there is none."""
    steps = controller.steps(last=1)
    return int(steps[-1]["step"]) if steps else -1


def _running(url: str) -> float:
    found = _metrics(url)
    return found.get("sglang:num_running_reqs", 0.0) + found.get("sglang:num_queue_reqs", 0.0)


def _metrics(url: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as reply:  # noqa: S310 - our own URL
        text = reply.read(MAX_BYTES).decode()
    totals: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
    return totals
