"""Tier S: one setting in the simulator."""

from __future__ import annotations

import numpy as np
from governor_profiles import StepProfile, load_profile
from governor_sim.simulate import SimConfig, SimResult, simulate
from governor_workloads.spec import Workload

from controller_service.policies.registry import parse_policy
from controller_service.predictors.base import StepLatencyPredictor
from governor_bench.eval.chunk.judge import judge
from governor_bench.eval.chunk.setting import (
    FITTED_TREES,
    Outcome,
    Setting,
    limits_of,
    workload_for,
)
from governor_bench.eval.learned.data import sweep
from governor_bench.eval.learned.models import ModelPredictor, fitted
from governor_bench.eval.predictors import trained
from governor_bench.eval.setting import STOCK

FAMILY = "extra_trees"
NOISE = 0.01
"""Relative standard deviation of the steps that the trees are fitted to."""


def run(setting: Setting) -> Outcome:
    """Simulate ``setting``."""
    workload = workload_for(setting)
    result = simulated(setting, workload)
    prefilled = result.steps.prefill_tokens[result.steps.prefill_tokens > 0]
    outcomes = result.tally.outcomes if result.tally else {}
    governed = sum(outcomes.values())
    return judge(
        setting,
        workload,
        result.served,
        end_s=setting.timing.end_s,
        times_real_time=result.times_real_time,
        prefill_tokens_per_step=float(np.mean(prefilled)) if len(prefilled) else 0.0,
        late_share=1.0 - outcomes["applied"] / governed if governed else 0.0,
    )


def simulated(setting: Setting, workload: Workload) -> SimResult:
    """The bare run of ``setting`` over its own ``workload``, with its steps."""
    profile = load_profile(setting.profile)
    config = SimConfig(limits=limits_of(setting), overlap=not setting.mixes_chunks)
    end_s = setting.timing.end_s
    if setting.policy == STOCK:
        return simulate(workload, profile, None, config=config, seconds=end_s)
    return simulate(
        workload,
        profile,
        parse_policy(setting.policy),
        predictor_of(setting, profile),
        config,
        seconds=end_s,
        seed=setting.seed,
    )


def predictor_of(setting: Setting, profile: StepProfile) -> StepLatencyPredictor:
    """As the controller of ``setting`` has it at the start."""
    if setting.predictor == FITTED_TREES:
        model = fitted(FAMILY, sweep(profile, NOISE, setting.seed), profile.graph_rows)
        return ModelPredictor(model)
    return trained(setting.predictor, profile, setting.seed)
