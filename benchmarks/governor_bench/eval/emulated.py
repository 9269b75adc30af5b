"""Tier E: settings on real SGLang with a GPU's step times, over real HTTP and a real controller."""

from __future__ import annotations

import contextlib
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from governor_workloads.report import summarise
from prometheus_client.parser import text_string_to_metric_families

from governor_bench.engine_metrics import MAX_BYTES, read_counters
from governor_bench.eval.setting import Outcome, Setting
from governor_bench.eval.simulated import LIMITS, NO_AGEING
from governor_bench.eval.workloads import workload_of
from governor_bench.load.client import LoadClient
from governor_bench.processes import workspace
from governor_bench.servers import Controller, EmulatedEngine

PUBLISHED_AFTER_S = 1.5
DRAIN_S = 30.0
TRAINING_S = 15.0


class EmulatedRig:
    """One emulated engine and its controller, for settings of one profile and one predictor."""

    def __init__(self, engine: EmulatedEngine, controller: Controller) -> None:
        self._engine = engine
        self._controller = controller

    def train(self, setting: Setting) -> None:
        """Let the predictor see narrow and wide steps under ``setting``'s load."""
        for policy in ("eager", "off"):
            self._controller.set_policy(policy)
            self._serve(setting, min(TRAINING_S, setting.seconds / 2))

    def run(self, setting: Setting) -> Outcome:
        """Run ``setting``; its predictor and profile are the rig's."""
        self._controller.set_policy(setting.policy)
        counters, device = read_counters(self._engine.url), _device(self._engine.url)
        since = _last_step(self._controller)
        served = self._serve(setting, setting.seconds)
        time.sleep(PUBLISHED_AFTER_S)
        counted = read_counters(self._engine.url).since(counters)
        now = _device(self._engine.url)
        spent = {name: now[name] - device.get(name, 0.0) for name in now}
        steps = [item for item in self._controller.steps() if item["step"] > since]
        decode = [item for item in steps if item["kind"] == 0]
        governed = counted.governed_steps
        return Outcome(
            setting=setting,
            report=summarise(served, (setting.warm_up_s, setting.seconds)),
            rows=_mean([item["rows"] for item in decode]),
            parked=_mean([item["parked_rows"] for item in decode]),
            step_ms=1e3 * _mean([item["latency_s"] for item in decode]) / self._engine.scale,
            late_share=1.0 - counted.outcomes.get("applied", 0) / governed if governed else 0.0,
            host={
                "scale": self._engine.scale,
                "steps": int(spent.get("governor_emulated_steps_total", 0)),
                "host_limited_steps": int(
                    spent.get("governor_emulated_host_limited_steps_total", 0)
                ),
                "host_limited_share": round(_host_share(spent), 4),
                "falls": {name: count for name, count in counted.falls.items() if count},
            },
        )

    def _serve(self, setting: Setting, seconds: float) -> list[Any]:
        workload = workload_of(
            setting.workload, setting.load, setting.slo_ms, setting.seed, setting.seconds
        )
        client = LoadClient(self._engine.url)
        served = client.run_workload(
            workload, time_scale=self._engine.scale, duration_s=seconds, stream=False
        )
        self._wait_until_idle()
        # The same prompts come again under the next policy, and must not find themselves cached.
        request = urllib.request.Request(f"{self._engine.url}/flush_cache", method="POST")  # noqa: S310
        with urllib.request.urlopen(request, timeout=30):  # noqa: S310
            pass
        return served

    def _wait_until_idle(self) -> None:
        """The next setting starts on an empty engine."""
        deadline_s = time.monotonic() + DRAIN_S * self._engine.scale
        while time.monotonic() < deadline_s:
            if not _running(self._engine.url):
                return
            time.sleep(0.2)
        raise TimeoutError(f"the engine still works {DRAIN_S:g} s after the load was cut off")


@contextlib.contextmanager
def emulated_rig(
    profile: str, predictor: str, scale: float, on_stage: Callable[[str], None]
) -> Iterator[EmulatedRig]:
    """Start controller and engine; both end with the block."""
    with workspace() as folder:
        on_stage(f"starting the emulated engine ({profile}, time x{scale:g})")
        with (
            Controller(folder, policy="eager", predictor=predictor) as controller,
            EmulatedEngine(
                Path(folder),
                profile,
                scale=scale,
                governor={
                    "ENDPOINT": controller.endpoint,
                    "MAX_PARKED_STEPS": str(NO_AGEING.max_parked_steps),
                },
                max_running_requests=LIMITS.max_running_requests,
                arguments=(
                    "--enable-metrics",
                    *("--chunked-prefill-size", str(LIMITS.chunked_prefill_size)),
                    *("--max-prefill-tokens", str(LIMITS.max_prefill_tokens)),
                ),
            ) as engine,
        ):
            controller.wait_ready()
            engine.wait_ready()
            yield EmulatedRig(engine, controller)


def _device(url: str) -> dict[str, float]:
    return {
        name: value
        for name, value in _metrics(url).items()
        if name.startswith("governor_emulated_") and name.endswith("_total")
    }


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


def _host_share(spent: dict[str, float]) -> float:
    lost_s = spent.get("governor_emulated_host_limited_seconds_total", 0.0)
    busy_s = spent.get("governor_emulated_busy_seconds_total", 0.0)
    return lost_s / (busy_s + lost_s) if busy_s else 0.0


def _last_step(controller: Controller) -> int:
    steps = controller.steps(last=1)
    return int(steps[-1]["step"]) if steps else -1


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
