"""Tier E: one emulated engine that drafts, and a controller that knows the baselines."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
from governor_workloads.served import Served

from governor_bench.engine_metrics import read_counters
from governor_bench.eval.running_engine import (
    PUBLISHED_AFTER_S,
    device_counters,
    host_share,
    last_step,
    make_idle,
    since_then,
)
from governor_bench.eval.simulated import LIMITS
from governor_bench.eval.speculation.controller import MODULE
from governor_bench.eval.speculation.recorded import decode_steps, step_figures
from governor_bench.eval.speculation.setting import (
    LENGTHS,
    NO_TARGET_MS,
    Outcome,
    Setting,
    judge,
    judged_requests,
    workload_of,
)
from governor_bench.load.client import LoadClient
from governor_bench.processes import workspace
from governor_bench.servers import Controller, EmulatedEngine

TRAINING = ("fixed_draft:0", "fixed_draft:3", "fixed_draft:10", "fixed_draft:1")
"""Policies under which the predictor sees steps before the first run, and what a draft costs."""


class SpeculationRig:
    """Runs settings one after the other; the predictor keeps what it learns."""

    def __init__(self, engine: EmulatedEngine, controller: Controller) -> None:
        self._engine = engine
        self._controller = controller

    def train(self, settings: Sequence[Setting]) -> None:
        """Let the predictor see steps under each setting's load."""
        for setting in settings:
            for policy in TRAINING:
                self._controller.set_policy(policy)
                self._serve(setting, setting.load)

    def run(self, setting: Setting) -> Outcome:
        """Run ``setting``.

        Raises:
            RunFailed: not all requests were served.
        """
        self._controller.set_policy(setting.policy)
        counters, device = read_counters(self._engine.url), device_counters(self._engine.url)
        since, began_s = last_step(self._controller), time.perf_counter()
        served = self._serve(setting, setting.load + judged_requests(setting))
        took_s = time.perf_counter() - began_s
        time.sleep(PUBLISHED_AFTER_S)
        counted = read_counters(self._engine.url).since(counters)
        spent = since_then(device, device_counters(self._engine.url))
        records = decode_steps(self._controller, since)
        virtual_s = max(item.last_token_s or 0.0 for item in served)
        steps = step_figures(records, self._engine.scale, times_real_time=virtual_s / took_s)
        governed = counted.governed_steps
        return judge(
            setting,
            served,
            msgspec.structs.replace(
                steps,
                host_limited_share=round(host_share(spent), 4),
                late_share=round(1.0 - counted.outcomes.get("applied", 0) / max(1, governed), 4),
            ),
        )

    def _serve(self, setting: Setting, enough: int) -> list[Served]:
        served = LoadClient(self._engine.url).run_workload(
            workload_of(setting), time_scale=self._engine.scale, stream=False, enough=enough
        )
        make_idle(self._engine)
        return served


@contextlib.contextmanager
def speculation_rig(
    setting: Setting, scale: float, on_stage: Callable[[str], None]
) -> Iterator[SpeculationRig]:
    """Start controller and engine; both end with the block.

    Args:
        setting: names the profile and the predictor of all that will run.
    """
    with workspace() as folder:
        on_stage(f"starting the emulated engine ({setting.profile}, time x{scale:g})")
        with (
            Controller(
                folder, policy="fixed_draft:0", predictor=setting.predictor, program=(MODULE,)
            ) as controller,
            EmulatedEngine(
                Path(folder),
                setting.profile,
                scale=scale,
                governor={
                    "ENDPOINT": controller.endpoint,
                    "DEFAULT_TPOT_SLO_MS": str(NO_TARGET_MS),
                    "EMULATED_DRAFT_LENGTHS": ",".join(map(str, LENGTHS)),
                },
                arguments=(
                    "--enable-metrics",
                    *("--speculative-algorithm", "EMULATED"),
                    *("--speculative-num-steps", str(LENGTHS[-1])),
                    *("--chunked-prefill-size", str(LIMITS.chunked_prefill_size)),
                    *("--max-prefill-tokens", str(LIMITS.max_prefill_tokens)),
                ),
            ) as engine,
        ):
            controller.wait_ready()
            engine.wait_ready()
            yield SpeculationRig(engine, controller)
