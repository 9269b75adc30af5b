"""Preemption in the simulator: as Governor's seams do it, and nothing is lost whatever is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec
import numpy as np
import pytest
from governor_sim.batching import CLIP_MAX_NEW_TOKENS, Batcher, EngineLimits
from governor_sim.drafting import DraftingConfig
from governor_sim.kv import KvMemory
from governor_sim.rows import SimRow
from governor_sim.simulate import SimConfig, SimResult, simulate
from governor_sim.timing import HostTimes
from governor_workloads.acceptance import Acceptance
from governor_workloads.spec import Workload, WorkRequest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta
from sim_builders import NO_LATENCY, PROFILE, configs, request, row, workload, workloads
from sim_turns import batcher, turn

from controller_service.policies.base import (
    Knob,
    NoConfig,
    OrderPlan,
    Part,
    Policy,
    PolicyKind,
    StepPlan,
)
from controller_service.policies.registry import parse_policy
from controller_service.predictors.base import StepLatencyPredictor
from controller_service.predictors.registry import make_predictor
from controller_service.state import StepState

FEWER = settings(max_examples=25, deadline=None)


class Dice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    seed: Annotated[int, Meta(ge=0)] = 0


def throw(
    state: StepState, predictor: StepLatencyPredictor, config: Dice, plan: StepPlan
) -> OrderPlan:
    """Any order, and any rows: what no policy would do, and every engine must bear."""
    if state.prefill is None or state.service is None:
        raise AssertionError("the simulated engine has the knobs")
    assert len(state.service.rows.attained_s) == state.rows
    rng = np.random.default_rng((config.seed, state.for_step))
    named = rng.permutation(state.prefill.waiting)[: rng.integers(0, state.prefill.waiting + 1)]
    marked = rng.random(state.rows) < rng.choice([0.0, 0.0, 0.3, 1.0])
    return OrderPlan(named, marked)


def random_orders(seed: int) -> Policy:
    dice = Part(PolicyKind("dice", throw, Dice, knob=Knob.ORDER), Dice(seed))
    return Policy((dice, *parse_policy("random:0.5:1").parts), "dice")


def run_under(load: Workload, policy: Policy, config: SimConfig) -> SimResult:
    return simulate(load, PROFILE, policy, make_predictor("linear"), config)


def assert_all_served(load: Workload, result: SimResult) -> None:
    served = {item.index: item for item in result.served}
    for asked in load.requests:
        assert served[asked.index].finished
        assert served[asked.index].output_tokens == asked.total_output_tokens
    assert result.kv_held_tokens == 0


def test_a_preempted_row_goes_to_the_end_of_the_queue_and_misses_one_token() -> None:
    engine = batcher(running=2)
    engine.waiting.extend([row(0), row(1), row(2)])
    for _ in range(3):
        turn(engine)
    first, second = engine.running
    assert engine.preempt((first.rid, "unknown")) == [first]
    assert engine.running == [second]
    assert [item.rid for item in engine.waiting] == ["2", "0"]
    assert engine.kv.used_tokens == second.prompt_tokens + second.own_tokens
    assert first.length - engine.kv.match(first)[1] == 1
    assert (engine.preemptions, engine.retractions) == (1, 0)


def test_one_row_is_left_whatever_is_asked() -> None:
    engine = batcher()
    engine.waiting.extend([row(0), row(1)])
    turn(engine)
    assert [item.rid for item in engine.preempt(("0", "1"))] == ["0"]
    assert [item.rid for item in engine.running] == ["1"]
    assert engine.preempt(("0", "1")) == []


def test_rows_stay_that_the_engine_would_not_let_go() -> None:
    engine = batcher()
    at_its_end, fresh, other = row(0, output=2), row(1), row(2)
    engine.waiting.extend([at_its_end, fresh, other])
    turn(engine)
    assert engine.preempt(("0", "1", "2"), under_way=[fresh]) == [other]
    # It has been let in once. For all that it may still say there is no room beside what it has.
    grown = Batcher(EngineLimits(), KvMemory(10 + CLIP_MAX_NEW_TOKENS + 4), limit_tokens=5000)
    grown.waiting.append(row(3))
    for _ in range(4):
        turn(grown)
    grown.running.append(row(4))
    assert grown.preempt(("3",)) == []


def orders(marks: Callable[[StepState], list[int]]) -> Policy:
    """Retracts the rows at these indices of each state."""

    def decide(
        state: StepState, predictor: StepLatencyPredictor, config: NoConfig, plan: StepPlan
    ) -> OrderPlan:
        marked = np.zeros(state.rows, dtype=np.bool_)
        marked[marks(state)] = True
        return OrderPlan(retract=marked)

    part = Part(PolicyKind("orders", decide, NoConfig, knob=Knob.ORDER), NoConfig())
    return Policy((part, *parse_policy("eager").parts), "orders")


@pytest.mark.parametrize("overlap", [True, False])
def test_nobody_is_preempted_at_a_step_that_prefills(overlap: bool) -> None:
    asked = 0

    def while_prompts_come_in(state: StepState) -> list[int]:
        nonlocal asked
        if state.prefill is None or not state.prefill.waiting:
            return []
        asked += state.running_rows > 1
        return [0]

    load = workload(request(0, 20, 40), request(1, 20, 40), request(2, 200, 4, arrival_s=0.1))
    limits = EngineLimits(chunked_prefill_size=20)
    config = SimConfig(limits=limits, overlap=overlap, latency=NO_LATENCY)
    result = run_under(load, orders(while_prompts_come_in), config)
    assert asked > 5
    assert result.preemptions == 0
    assert_all_served(load, result)


@pytest.mark.parametrize("overlap", [True, False])
def test_every_turn_brings_a_token_whatever_is_ordered(
    overlap: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrote: dict[str, list[int]] = {}
    set_aside = KvMemory.set_aside

    def noted(kv: KvMemory, item: SimRow) -> None:
        wrote.setdefault(item.rid, [0]).append(item.output_tokens)
        set_aside(kv, item)

    monkeypatch.setattr(KvMemory, "set_aside", noted)
    load = workload(*(request(index, 20, 12) for index in range(4)))
    limits = EngineLimits(max_running_requests=3)
    config = SimConfig(limits=limits, overlap=overlap, latency=NO_LATENCY)
    everybody = orders(lambda state: list(range(state.rows)))
    result = run_under(load, everybody, config)
    assert_all_served(load, result)
    assert result.preemptions > 10
    for tokens in wrote.values():
        assert tokens == sorted(set(tokens))


def test_retracting_takes_the_host_its_time() -> None:
    load = workload(*(request(index, 20, 30) for index in range(4)))
    limits = EngineLimits(max_running_requests=3)
    policy = orders(lambda state: [0, 1] if state.for_step == 9 else [])
    took_s = []
    for host in (
        HostTimes(retract_s=1.0, retract_row_s=0.5),
        HostTimes(retract_s=0.0, retract_row_s=0.0),
    ):
        config = SimConfig(limits=limits, host=host, overlap=False, latency=NO_LATENCY)
        result = run_under(load, policy, config)
        assert result.preemptions == 2
        took_s.append(result.virtual_s)
    assert took_s[0] - took_s[1] == pytest.approx(1.0 + 2 * 0.5)


@FEWER
@given(st.integers(2, 6), st.integers(0, 1 << 16), st.booleans(), st.booleans())
def test_where_memory_is_ample_coming_back_takes_one_token(
    requests: int, seed: int, overlap: bool, drafts: bool
) -> None:
    asked = [request(index, 20 + index, 25, arrival_s=0.05 * index) for index in range(requests)]
    load = msgspec.structs.replace(workload(*asked), acceptance=Acceptance(0.6, spread=0.2))
    config = SimConfig(
        limits=EngineLimits(max_running_requests=3),
        overlap=overlap,
        drafting=DraftingConfig() if drafts else None,
    )
    result = run_under(load, random_orders(seed), config)
    assert_all_served(load, result)
    assert result.tally is not None
    assert result.tally.retracted_rows == result.preemptions
    prompts = sum(one.prompt_tokens for one in asked)
    assert result.steps.prefill_tokens.sum() == prompts + result.preemptions


@FEWER
@given(workloads(), st.integers(0, 1 << 16), st.data())
def test_everybody_is_served_under_random_preemption(
    load: Workload, seed: int, data: st.DataObject
) -> None:
    config = data.draw(configs(load))
    assert_all_served(load, run_under(load, random_orders(seed), config))


@FEWER
@given(workloads(), st.integers(0, 1 << 16), st.booleans())
def test_drafts_and_random_preemption_lose_no_token(
    load: Workload, seed: int, overlap: bool
) -> None:
    load = msgspec.structs.replace(load, acceptance=Acceptance(0.6, spread=0.2))
    config = SimConfig(
        limits=EngineLimits(max_running_requests=3), overlap=overlap, drafting=DraftingConfig()
    )
    assert_all_served(load, run_under(load, random_orders(seed), config))


CROWD = workload(
    *(request(index, 40, 600) for index in range(4)),
    *(request(4 + index, 20, 10, arrival_s=0.5 + 0.05 * index) for index in range(12)),
)
CROWDED = SimConfig(limits=EngineLimits(max_running_requests=4), latency=NO_LATENCY)


def mean_latency_s(result: SimResult) -> float:
    return float(np.mean([(item.last_token_s or np.inf) - item.sent_s for item in result.served]))


def test_admission_goes_by_the_limit_that_requests_name() -> None:
    load = workload(*(request(index, 20, 10) for index in range(8)))
    by_what_comes = SimConfig(kv_tokens=4000, max_new_tokens=1000, latency=NO_LATENCY)
    by_limit = msgspec.structs.replace(by_what_comes, admits_by_limit=True)
    rows = []
    for config in (by_what_comes, by_limit):
        result = run_under(load, parse_policy("fcfs"), config)
        assert_all_served(load, result)
        rows.append(result.steps.rows.max())
    assert rows[0] == 8
    assert rows[1] < 8
    with pytest.raises(ValueError, match="kv_tokens"):
        run_under(load, parse_policy("fcfs"), msgspec.structs.replace(by_limit, kv_tokens=900))


def test_long_rows_yield_to_a_crowd_of_short_ones() -> None:
    stock = simulate(CROWD, PROFILE, None, None, CROWDED)
    laps = run_under(CROWD, parse_policy("laps_sd"), CROWDED)
    assert_all_served(CROWD, laps)
    assert laps.preemptions
    assert mean_latency_s(laps) < 0.5 * mean_latency_s(stock)


BOUNDED = ("laps_sd", "las", "sjf")
ONE_AT_A_TIME = SimConfig(limits=EngineLimits(max_running_requests=1), latency=NO_LATENCY)
STREAM = workload(
    request(0, 20, 20),
    request(1, 20, 100, arrival_s=0.01),
    *(request(2 + index, 20, 20, arrival_s=0.02 + 0.15 * index) for index in range(100)),
)
"""One long request in a stream of short ones that is more than the engine can serve."""


@pytest.mark.parametrize("policy", ["laps_sd:late_share=0", "sjf"])
def test_a_long_request_is_served_in_a_stream_of_short_ones_after_its_patience(policy: str) -> None:
    patience_s, own_s, step_s = 2.0, 1.1, 0.3
    bounded = run_under(STREAM, parse_policy(f"{policy}:patience_s={patience_s}"), ONE_AT_A_TIME)
    endless = run_under(STREAM, parse_policy(f"{policy}:patience_s=1e6"), ONE_AT_A_TIME)
    took_s, for_ever_s = (
        next(item.last_token_s for item in result.served if item.index == 1)
        for result in (bounded, endless)
    )
    assert took_s is not None
    assert for_ever_s is not None
    assert took_s <= patience_s + own_s + step_s
    assert for_ever_s > 10.0


def test_a_share_of_the_places_serves_a_long_request_before_its_patience_is_at_an_end() -> None:
    result = run_under(STREAM, parse_policy("laps_sd:patience_s=1e6"), ONE_AT_A_TIME)
    took_s = next(item.last_token_s for item in result.served if item.index == 1)
    assert took_s is not None
    assert took_s < 10.0


@pytest.mark.parametrize("policy", BOUNDED)
@FEWER
@given(load=workloads())
def test_nobody_waits_for_longer_than_patience_and_for_those_that_are_older(
    policy: str, load: Workload
) -> None:
    """From then on only older ones pass it, and what runs has to end."""
    patience_s = 0.1
    serial = [msgspec.structs.replace(asked, branches=1) for asked in load.requests]
    load = msgspec.structs.replace(load, requests=tuple(serial))
    result = run_under(load, parse_policy(f"{policy}:patience_s={patience_s}"), ONE_AT_A_TIME)
    assert_all_served(load, result)
    alone_s = {asked.index: _alone_s(asked) for asked in serial}
    for item in result.served:
        upto_s = item.sent_s + 1e-3  # so close together, nobody is older
        older_s = sum(alone_s[other.index] for other in serial if other.arrival_s <= upto_s)
        assert item.last_token_s is not None
        took_s = item.last_token_s - item.sent_s
        # Who was let in for it may have to be computed again, some of it.
        assert took_s <= patience_s + 1.1 * (older_s + max(alone_s.values()))


def _alone_s(asked: WorkRequest) -> float:
    only = workload(msgspec.structs.replace(asked, index=0, arrival_s=0.0))
    return simulate(only, PROFILE, None, None, ONE_AT_A_TIME).virtual_s
