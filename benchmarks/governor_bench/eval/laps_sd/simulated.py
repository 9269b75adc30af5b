"""Tier S: one setting in the simulator."""

from __future__ import annotations

from governor_profiles import load_profile
from governor_sim.simulate import SimConfig, SimResult, simulate
from governor_workloads.spec import Workload

from controller_service.policies.base import Policy
from governor_bench.eval.laps_sd.contestants import SRPT, policy_of
from governor_bench.eval.laps_sd.estimation import Recorder
from governor_bench.eval.laps_sd.judge import judge
from governor_bench.eval.laps_sd.setting import (
    DECLARED,
    Outcome,
    Setting,
    drafting_of,
    limits_of,
    workload_for,
)
from governor_bench.eval.laps_sd.shapes import shape_of
from governor_bench.eval.predictors import trained
from governor_bench.eval.setting import STOCK

LAPS_SD = "laps_sd"


def run(setting: Setting) -> Outcome:
    """Simulate ``setting``."""
    workload = workload_for(setting)
    policy = recorder = None
    if setting.policy != STOCK:
        policy = policy_of(setting, workload)
    if policy is not None and setting.policy.startswith(LAPS_SD):
        # Ids follow the order of arrival.
        early = sum(item.arrival_s < setting.timing.warm_up_s for item in workload.requests)
        recorder = Recorder(policy, first_id=early + 1)
        policy = recorder.policy
    result = simulated(setting, workload, policy)
    start_s, stop_s = setting.timing.window_s
    steps = result.steps
    inside = (steps.prefill_tokens == 0) & (steps.end_s > start_s) & (steps.end_s <= stop_s)
    outcomes = result.tally.outcomes if result.tally else {}
    governed = sum(outcomes.values())
    return judge(
        setting,
        result.served,
        end_s=setting.timing.end_s,
        preemptions=result.preemptions,
        retractions=result.retractions,
        rows=float(steps.rows[inside].mean()) if inside.any() else 0.0,
        estimates=None if recorder is None else recorder.estimates(),
        times_real_time=result.times_real_time,
        late_share=1.0 - outcomes["applied"] / governed if governed else 0.0,
    )


def simulated(setting: Setting, workload: Workload, policy: Policy | None) -> SimResult:
    """The bare run of ``setting`` over its own ``workload``; without a policy, ungoverned."""
    profile = load_profile(setting.profile)
    # A request of tier E ends with its limit, which is what it will say.
    declares = setting.lengths == DECLARED or setting.emulated or setting.policy == SRPT
    config = SimConfig(
        limits=limits_of(setting),
        drafting=drafting_of(setting),
        max_new_tokens=0 if declares else shape_of(setting.shape).limit_tokens,
    )
    return simulate(
        workload,
        profile,
        policy,
        None if policy is None else trained(setting.predictor, profile, setting.seed),
        config,
        seconds=setting.timing.end_s,
        seed=setting.seed,
    )
