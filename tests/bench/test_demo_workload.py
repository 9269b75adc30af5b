"""The demo's load, in the simulator: it shows what the demo is there to show."""

from __future__ import annotations

from governor_bench.demo.measure import Turn, summarise_policy
from governor_bench.demo.run import (
    CHUNK_TOKENS,
    MOST_ROWS,
    OFF,
    POLICIES,
    PREDICTOR,
    PROFILE,
    STOCK,
)
from governor_bench.demo.verdict import KEPT, Outcome, judge
from governor_bench.demo.workload import TURN_INDICES, DemoLoad
from governor_bench.engine_metrics import GovernorCounters
from governor_profiles import load_profile
from governor_sim.batching import EngineLimits
from governor_sim.simulate import SimConfig, simulate
from governor_workloads.served import Served

from controller_service.policies.registry import parse_policy
from controller_service.predictors.registry import make_predictor

FROM_S = 6.0


def simulated(policy: str, seed: int) -> Turn:
    """A turn of the demo in the simulator, after a warm-up of its own."""
    limits = EngineLimits(max_running_requests=MOST_ROWS, chunked_prefill_size=CHUNK_TOKENS)
    result = simulate(
        DemoLoad().rehearsal(seed, FROM_S),
        load_profile(PROFILE),
        parse_policy(policy),
        make_predictor(PREDICTOR),
        SimConfig(limits=limits),
        seed=seed,
    )
    served = DemoLoad().judged([item for item in result.served if item.sent_s >= FROM_S])
    nothing = GovernorCounters({}, {}, 0, 0, 0, True)
    return Turn.of(policy, seed, served, {}, nothing, [], {"p50": 0.0, "p99": 0.0}, 0.0, 0.0)


def test_stock_breaks_the_chats_target_and_one_branch_at_a_time_is_slow() -> None:
    """Whatever the default policy makes of it, there is something to be had on this GPU."""
    turns = [simulated(policy, seed) for policy in (OFF, STOCK) for seed in (1, 2)]
    off, stock = (summarise_policy(policy, turns) for policy in (OFF, STOCK))
    assert off.kept_share == 1.0
    assert stock.kept_share < 0.5
    assert off.branching_latency_p50_s > 3 * stock.branching_latency_p50_s


def test_the_default_policy_keeps_both() -> None:
    turns = [simulated(policy, seed) for policy in POLICIES for seed in (1, 2)]
    off, stock, governed = (summarise_policy(policy, turns) for policy in POLICIES)
    assert governed.kept_share >= KEPT
    assert governed.branching_latency_p50_s < 0.6 * off.branching_latency_p50_s
    verdict = judge(off, stock, governed, turns, 50.0)
    assert verdict.outcome == Outcome.KEEPS_BOTH


def test_policies_meet_equal_arrivals_and_no_chat_of_another_turn() -> None:
    load = DemoLoad()
    one, other = load.turn(1, 1).requests, load.turn(1, 2).requests
    assert [(item.arrival_s, item.output_tokens, item.branches) for item in one] == [
        (item.arrival_s, item.output_tokens, item.branches) for item in other
    ]
    assert not {item.index for item in one} & {item.index for item in other}
    assert max(item.index for item in load.warm_up().requests) < TURN_INDICES
    assert load.turn(2, 1).requests != one


def test_every_number_of_the_load_is_told() -> None:
    text = DemoLoad().describe()
    for word in ("25 chats", "n = 20", "10240 tokens", "0, 1.5, 3 s", "50 ms per token", "45 ms"):
        assert word in text


def test_chats_are_judged_by_the_promise_and_not_by_what_the_engine_is_told() -> None:
    load = DemoLoad()
    (chat, *_) = (item for item in load.turn(1, 1).requests if item.branches == 1)
    assert chat.tpot_slo_s == 0.045
    between = Served(0, 1, None, chat.tpot_slo_s, 0.0, 0.0, 4.8, 101)
    assert not between.meets_targets
    assert load.judged([between])[0].meets_targets
