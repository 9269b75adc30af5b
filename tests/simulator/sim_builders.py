"""Small engines, workloads and strategies for the simulator's tests."""

from __future__ import annotations

from typing import Any

from governor_profiles import StepProfile
from governor_sim.batching import EngineLimits
from governor_sim.rows import SimRow, segments_of
from governor_sim.simulate import SPARE_TOKENS, SimConfig, SimResult, simulate
from governor_sim.timing import DecisionLatency
from governor_workloads.spec import Workload, WorkRequest
from hypothesis import strategies as st

from controller_service.policies.registry import parse_policy
from controller_service.predictors.registry import make_predictor

POLICIES = ("off", "eager", "cap:2", "taper", "taper_plus", "random:0.5:1")
PROFILE = StepProfile(
    name="small",
    source="made up for tests: no device",
    measured=False,
    fixed_s=0.01,
    row_s=1e-4,
    context_token_s=1e-6,
    prefill_token_s=2e-5,
    draft_token_s=0.0,
    kv_tokens=100_000,
)
NO_LATENCY = DecisionLatency(median_s=0.0, spread=0.0)


def request(index: int = 0, prompt: int = 10, output: int = 5, **terms: Any) -> WorkRequest:
    return WorkRequest(
        index=index,
        arrival_s=terms.pop("arrival_s", 0.0),
        prompt_tokens=prompt,
        output_tokens=output,
        **terms,
    )


def workload(*requests: WorkRequest, users: int = 0) -> Workload:
    return Workload(
        name="test",
        description="made up",
        requests=requests,
        arrivals="closed" if users else "open",
        users=users,
    )


def row(
    index: int = 0,
    prompt: int = 10,
    output: int = 5,
    blocks: tuple[int, ...] = (),
    block_tokens: int = 512,
) -> SimRow:
    """A row as it arrives; rows of one index share their prompt."""
    asked = request(index, prompt, output, prefix_blocks=blocks)
    return SimRow(f"{index}", asked, segments_of(asked, block_tokens), 0.0)


def run(load: Workload, policy: str | None, config: SimConfig | None = None) -> SimResult:
    """Simulate all of ``load``; None is a stock engine."""
    if policy is None:
        return simulate(load, PROFILE, None, None, config)
    return simulate(load, PROFILE, parse_policy(policy), make_predictor("linear"), config)


@st.composite
def workloads(draw: st.DrawFn, *, closed: bool = False) -> Workload:
    """Up to ten short requests, some with branches, targets and shared blocks."""
    count = draw(st.integers(1, 10))
    requests = [
        WorkRequest(
            index=index,
            arrival_s=0.0 if closed else draw(st.floats(0, 0.4)),
            prompt_tokens=draw(st.integers(1, 60)),
            output_tokens=draw(st.integers(1, 24)),
            branches=draw(st.sampled_from([1, 1, 2, 5])),
            tpot_slo_s=draw(st.sampled_from([None, 0.011, 0.1])),
            think_s=draw(st.floats(0, 0.2)) if closed else 0.0,
            prefix_blocks=draw(st.sampled_from([(), (1,), (1, 2), (3,)])),
        )
        for index in range(count)
    ]
    return Workload(
        name="drawn",
        description="drawn by hypothesis",
        requests=tuple(requests),
        arrivals="closed" if closed else "open",
        users=draw(st.integers(1, 4)) if closed else 0,
        prefix_block_tokens=16,
    )


@st.composite
def configs(draw: st.DrawFn, load: Workload) -> SimConfig:
    """Either loop; memory from just enough for one row to plenty; few rows or many."""
    largest = max(item.prompt_tokens + item.output_tokens for item in load.requests)
    return SimConfig(
        limits=EngineLimits(
            max_running_requests=draw(st.sampled_from([1, 2, 3, 100])),
            chunked_prefill_size=draw(st.sampled_from([1, 7, 32, 8192])),
        ),
        overlap=draw(st.booleans()),
        kv_tokens=largest + SPARE_TOKENS + draw(st.sampled_from([0, 1, 20, 5000])),
    )
