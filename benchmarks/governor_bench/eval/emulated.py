"""Tier E: settings on real SGLang with a GPU's step times, over real HTTP and a real controller."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from governor_workloads.report import summarise

from governor_bench.engine_metrics import read_counters
from governor_bench.eval.running_engine import (
    PUBLISHED_AFTER_S,
    device_counters,
    host_share,
    last_step,
    make_idle,
    since_then,
)
from governor_bench.eval.setting import Outcome, Setting
from governor_bench.eval.simulated import LIMITS, NO_AGEING
from governor_bench.eval.workloads import workload_of
from governor_bench.load.client import LoadClient
from governor_bench.processes import workspace
from governor_bench.servers import Controller, EmulatedEngine

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
        counters, device = read_counters(self._engine.url), device_counters(self._engine.url)
        since = last_step(self._controller)
        served = self._serve(setting, setting.seconds)
        time.sleep(PUBLISHED_AFTER_S)
        counted = read_counters(self._engine.url).since(counters)
        spent = since_then(device, device_counters(self._engine.url))
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
                "host_limited_share": round(host_share(spent), 4),
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
        make_idle(self._engine)
        return served


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


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
