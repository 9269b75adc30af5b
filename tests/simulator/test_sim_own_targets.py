"""Requests that branch and are promised a pace that one row cannot make, in virtual time."""

from __future__ import annotations

import pytest
from governor_profiles import load_profile
from governor_sim.simulate import simulate
from governor_workloads.generator import generate
from governor_workloads.mix import Mix
from governor_workloads.report import summarise

from controller_service.policies.registry import parse_policy
from controller_service.predictors.registry import make_predictor

SECONDS = 60.0
SEARCHES = Mix.of(
    {
        "name": "searches beside chats",
        "arrivals": {"kind": "poisson", "rate_per_s": 2.2},
        "duration_s": SECONDS,
        "prompt_tokens": {"kind": "uniform", "min": 200, "max": 1200},
        "output_tokens": {"kind": "uniform", "min": 60, "max": 300},
        "branching_share": 0.6,
        "widths": [[6, 1.0], [12, 1.0]],
        "branch_tokens": {"kind": "uniform", "min": 60, "max": 240},
        "targets": [{"weight": 1, "tpot_slo_s": 0.05, "ttft_slo_s": 2.0}],
        "branching_targets": [{"weight": 1, "tpot_slo_s": 0.012, "ttft_slo_s": 4.0}],
    }
)


@pytest.mark.parametrize("policy", ["taper_plus", "adaptive_chunk", "adaptive_chunk+taper_plus"])
def test_who_needs_its_branches_is_served_as_well_as_by_stock(policy) -> None:
    """Deterministic: arrivals, step times and decisions follow from the seed."""
    workload, profile = generate(SEARCHES, 3), load_profile("qwen3-32b-h200")
    stock = simulate(workload, profile, None, seconds=SECONDS, seed=3)
    governed = simulate(
        workload,
        profile,
        parse_policy(policy),
        make_predictor("corrected-linear"),
        seconds=SECONDS,
        seed=3,
    )
    before, now = (summarise(one.served, (0.0, SECONDS)) for one in (stock, governed))
    assert before.branching_attainment > 0.9, "a promise that stock keeps"
    assert now.goodput_tok_s >= 0.98 * before.goodput_tok_s
    assert now.branching_attainment >= before.branching_attainment - 0.02
