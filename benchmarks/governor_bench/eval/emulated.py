"""Tier E: settings on real SGLang with a GPU's step times, over real HTTP and a real controller."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from governor_workloads.report import summarise
from governor_workloads.spec import Workload

from governor_bench.eval.emulated_pair import EmulatedPair, emulated_pair
from governor_bench.eval.setting import Outcome, Setting
from governor_bench.eval.simulated import NO_AGEING
from governor_bench.eval.workloads import workload_of

TRAINING_S = 15.0


class EmulatedRig:
    """One emulated engine and its controller, for settings of one profile and one predictor."""

    def __init__(self, pair: EmulatedPair) -> None:
        self._pair = pair

    def train(self, setting: Setting) -> None:
        """Let the predictor see narrow and wide steps under ``setting``'s load."""
        for policy in ("eager", "off"):
            self._pair.serve(
                policy, _workload(setting), duration_s=min(TRAINING_S, setting.seconds / 2)
            )

    def run(self, setting: Setting) -> Outcome:
        """Run ``setting``; its predictor and profile are the rig's."""
        seen = self._pair.observe(setting.policy, _workload(setting), duration_s=setting.seconds)
        decode = [item for item in seen.steps if item["kind"] == 0]
        return Outcome(
            setting=setting,
            report=summarise(seen.served, (setting.warm_up_s, setting.seconds)),
            rows=_mean([item["rows"] for item in decode]),
            parked=_mean([item["parked_rows"] for item in decode]),
            step_ms=1e3 * _mean([item["latency_s"] for item in decode]) / self._pair.scale,
            late_share=seen.late_share,
            host={
                "scale": self._pair.scale,
                "steps": int(seen.device.get("governor_emulated_steps_total", 0)),
                "host_limited_steps": int(
                    seen.device.get("governor_emulated_host_limited_steps_total", 0)
                ),
                "host_limited_share": seen.host_limited_share,
                "falls": {name: count for name, count in seen.counted.falls.items() if count},
            },
        )


@contextlib.contextmanager
def emulated_rig(
    profile: str, predictor: str, scale: float, on_stage: Callable[[str], None]
) -> Iterator[EmulatedRig]:
    """Start controller and engine; both end with the block."""
    governor = {"MAX_PARKED_STEPS": str(NO_AGEING.max_parked_steps)}
    with emulated_pair(profile, predictor, scale, on_stage, governor=governor) as pair:
        yield EmulatedRig(pair)


def _workload(setting: Setting) -> Workload:
    return workload_of(
        setting.workload, setting.load, setting.slo_ms, setting.seed, setting.seconds
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
