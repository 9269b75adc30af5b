"""The simulated engine as a whole: everybody is served, whoever governs."""

from __future__ import annotations

import msgspec
import pytest
from governor_sim.batching import EngineLimits
from governor_sim.simulate import SimConfig, SimResult, simulate
from governor_sim.timing import DecisionLatency
from governor_workloads.served import Served
from governor_workloads.spec import Workload, WorkRequest
from hypothesis import given, settings
from hypothesis import strategies as st
from sim_builders import NO_LATENCY, POLICIES, PROFILE, configs, request, run, workload, workloads

from controller_service.policies.registry import parse_policy
from controller_service.predictors.registry import make_predictor
from sglang_patch.config import EngineConfig

FEWER = settings(max_examples=25, deadline=None)
BUSY = workload(
    *(
        request(index, 50 + 13 * index, 20 + index % 7, arrival_s=0.05 * index, branches=branches)
        for index, branches in enumerate([1, 4, 1, 3, 1, 1, 6, 2, 1, 5, 1, 4])
    )
)


def in_order(result: SimResult) -> list[Served]:
    return sorted(result.served, key=lambda item: item.index)


def assert_all_served(load: Workload, result: SimResult) -> None:
    assert [item.index for item in in_order(result)] == [item.index for item in load.requests]
    for item, asked in zip(in_order(result), load.requests, strict=True):
        assert item.finished
        assert item.output_tokens == asked.total_output_tokens
        assert item.first_token_s is not None
        assert item.last_token_s is not None
        assert item.sent_s < item.first_token_s <= item.last_token_s
    assert result.kv_held_tokens == 0


@pytest.mark.parametrize("policy", [None, *POLICIES])
@FEWER
@given(data=st.data())
def test_every_request_gets_exactly_its_tokens(policy: str | None, data: st.DataObject) -> None:
    load = data.draw(workloads())
    result = run(load, policy, data.draw(configs(load)))
    assert_all_served(load, result)


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("policy", [None, *POLICIES])
def test_too_little_memory_retracts_and_loses_nothing(policy: str | None, overlap: bool) -> None:
    # Each comes when those before have started: admission expects 0.7 of their output and is wrong.
    load = workload(*(request(index, 20, 100, arrival_s=0.03 * index) for index in range(8)))
    result = run(load, policy, SimConfig(kv_tokens=400, overlap=overlap))
    assert result.retractions > 0
    assert_all_served(load, result)


@pytest.mark.parametrize(
    ("kv_tokens", "rows"),
    [  # (prompt, output, arrival): found by search, as the moment is rare
        (141, [(8, 60, 0.202), (20, 60, 0.112), (2, 60, 0.123), (6, 60, 0.258), (4, 9, 0.033)]),
        (
            144,
            [
                *[(11, 60, 0.022), (2, 3, 0.155), (1, 12, 0.014), (15, 10, 0.08)],
                *[(14, 60, 0.033), (7, 2, 0.065), (19, 60, 0.051), (16, 5, 0.21)],
            ],
        ),
    ],
)
def test_a_row_that_is_retracted_with_its_last_token_under_way_gets_it_again(
    kv_tokens: int, rows: list[tuple[int, int, float]]
) -> None:
    load = workload(
        *(
            request(index, prompt, output, arrival_s=arrival_s)
            for index, (prompt, output, arrival_s) in enumerate(rows)
        )
    )
    result = run(load, None, SimConfig(kv_tokens=kv_tokens))
    assert result.retractions > 0
    assert_all_served(load, result)


def test_steps_with_parked_rows_let_expectations_relax_as_others_do() -> None:
    branching = request(0, 20, 1000, branches=5)
    late = request(1, 100, 2100, arrival_s=3.5)
    config = SimConfig(kv_tokens=5600, engine=EngineConfig(max_parked_steps=4096))
    result = run(workload(branching, late), "off", config)
    assert in_order(result)[1].ttft_s == pytest.approx(0.0, abs=0.2)


@FEWER
@given(data=st.data())
def test_governing_without_parking_changes_no_time(data: st.DataObject) -> None:
    load = data.draw(workloads())
    config = msgspec.structs.replace(data.draw(configs(load)), latency=NO_LATENCY)
    assert run(load, None, config).served == run(load, "eager", config).served


@pytest.mark.parametrize("overlap", [True, False])
def test_nor_does_it_with_the_latency_of_a_real_controller(overlap: bool) -> None:
    config = SimConfig(overlap=overlap)
    stock, governed = run(BUSY, None, config), run(BUSY, "eager", config)
    assert stock.served == governed.served
    assert governed.tally is not None
    assert governed.tally.outcomes["applied"] > 0


def test_parking_does_change_times() -> None:
    assert run(BUSY, None).served != run(BUSY, "cap:2").served


@pytest.mark.parametrize("policy", [None, "taper_plus", "random:0.5:1"])
def test_equal_seeds_give_equal_runs(policy: str | None) -> None:
    first, second = run(BUSY, policy), run(BUSY, policy)
    assert first.served == second.served
    assert first.virtual_s == second.virtual_s
    assert first.steps.end_s.tolist() == second.steps.end_s.tolist()


def test_the_seed_draws_the_latencies() -> None:
    config = SimConfig(latency=DecisionLatency(median_s=0.01, spread=1.0))
    applied = set()
    for seed in range(4):
        result = simulate(
            BUSY, PROFILE, parse_policy("cap:1"), make_predictor("linear"), config, seed=seed
        )
        assert result.tally is not None
        applied.add(result.tally.outcomes["applied"])
    assert len(applied) > 1


@FEWER
@given(data=st.data(), policy=st.sampled_from([None, "off", "taper_plus"]))
def test_a_closed_loop_has_at_most_its_users_in_flight(
    data: st.DataObject, policy: str | None
) -> None:
    load = data.draw(workloads(closed=True))
    result = run(load, policy, data.draw(configs(load)))
    assert_all_served(load, result)
    changes = [(item.sent_s, 1) for item in result.served]
    changes += [(item.last_token_s or 0.0, -1) for item in result.served]
    in_flight = most = 0
    for _, change in sorted(changes):  # who ends at a moment ends before the next begins
        in_flight += change
        most = max(most, in_flight)
    assert 1 <= most <= load.users


def test_users_of_a_closed_loop_think_before_they_send() -> None:
    load = workload(*(request(index, think_s=0.5) for index in range(3)), users=1)
    first, second, third = in_order(run(load, None))
    assert first.sent_s == 0.5
    assert second.sent_s == pytest.approx((first.last_token_s or 0.0) + 0.5)
    assert third.sent_s == pytest.approx((second.last_token_s or 0.0) + 0.5)


def test_the_end_cuts_off_what_is_in_flight() -> None:
    load = workload(request(0, output=5), request(1, output=5000), request(2, arrival_s=99.0))
    result = simulate(load, PROFILE, None, seconds=1.0)
    assert [item.index for item in result.served] == [0, 1]
    assert [item.finished for item in result.served] == [True, False]
    assert result.virtual_s == pytest.approx(1.0, abs=0.1)


def test_no_step_holds_more_rows_than_may_run() -> None:
    result = run(BUSY, None, SimConfig(limits=EngineLimits(max_running_requests=3)))
    assert result.steps.rows.max() == 3
    assert_all_served(BUSY, result)


def test_steps_tell_what_they_held() -> None:
    result = run(BUSY, "off")
    steps, tally = result.steps, result.tally
    assert tally is not None
    assert steps.parked.sum() == tally.parked_row_steps > 0
    assert not steps.extra[steps.prefill_tokens > 0].any()
    assert (steps.end_s[1:] > steps.end_s[:-1]).all()


@pytest.mark.parametrize("tokens", [1, 17])
def test_a_request_that_memory_cannot_hold_is_refused_by_name(tokens: int) -> None:
    load = workload(request(0, 2, 2), WorkRequest(1, 0.0, 10, 5))
    with pytest.raises(ValueError, match=r"kv_tokens: .* request"):
        run(load, None, SimConfig(kv_tokens=tokens))
    assert_all_served(load, run(load, None, SimConfig(kv_tokens=18)))


def test_a_policy_needs_a_predictor() -> None:
    with pytest.raises(ValueError, match="predictor"):
        simulate(BUSY, PROFILE, parse_policy("eager"))
