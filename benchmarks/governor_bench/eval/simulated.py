"""Tier S: one setting in the simulator."""

from __future__ import annotations

import numpy as np
from governor_profiles import load_profile
from governor_sim.batching import EngineLimits
from governor_sim.clairvoyant import NAME as CLAIRVOYANT
from governor_sim.clairvoyant import TruePredictor, clairvoyant
from governor_sim.simulate import SimConfig, SimResult, simulate
from governor_workloads.report import summarise

from controller_service.policies.registry import parse_policy
from governor_bench.eval.predictors import trained
from governor_bench.eval.setting import STOCK, Outcome, Setting
from governor_bench.eval.workloads import workload_of
from sglang_patch.config import EngineConfig

LIMITS = EngineLimits(max_running_requests=2048)
"""What SGLang gives itself on a GPU of this size."""
NO_AGEING = EngineConfig(max_parked_steps=4096)
"""So that a baseline is what its name says: by default a row advances after 64 steps whatever the
policy wants."""


def run_simulated(setting: Setting) -> Outcome:
    """Simulate ``setting``."""
    result = simulated(setting)
    steps = result.steps
    decode = steps.prefill_tokens == 0
    governed = sum(result.tally.outcomes.values()) if result.tally else 0
    late = governed - result.tally.outcomes["applied"] if result.tally else 0
    return Outcome(
        setting=setting,
        report=summarise(result.served, (setting.warm_up_s, setting.seconds)),
        rows=_mean(steps.rows[decode]),
        parked=_mean(steps.parked[decode]),
        step_ms=1e3 * _mean(steps.seconds[decode]),
        late_share=late / governed if governed else 0.0,
        host={
            "times_real_time": round(result.times_real_time, 1),
            "retractions": result.retractions,
            "host_limited_s": round(result.host_limited_s, 3),
        },
    )


def simulated(setting: Setting) -> SimResult:
    """The bare run of ``setting``, with its steps."""
    profile = load_profile(setting.profile)
    workload = workload_of(
        setting.workload, setting.load, setting.slo_ms, setting.seed, setting.seconds
    )
    config = SimConfig(limits=LIMITS, engine=NO_AGEING, replan_steps=setting.replan_steps)
    if setting.policy == STOCK:
        return simulate(workload, profile, None, config=config, seconds=setting.seconds)
    if setting.policy == CLAIRVOYANT:
        policy, predictor = clairvoyant(), TruePredictor(profile)
        return simulate(
            workload, profile, policy, predictor, config, seconds=setting.seconds, seed=setting.seed
        )
    return simulate(
        workload,
        profile,
        parse_policy(setting.policy),
        trained(setting.predictor, profile, setting.seed, setting.predictor_factor),
        config,
        seconds=setting.seconds,
        seed=setting.seed,
    )


def _mean(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    return float(values.mean()) if len(values) else 0.0
