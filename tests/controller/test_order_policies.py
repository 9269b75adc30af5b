"""Policies for the order of service: who goes first, who yields, and that nobody starves."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from controller_builders import NO_PROMISE_S, KnownPredictor, rows_of, snapshot_of, state_of
from governor_protos import decode_to_engine
from governor_protos.columns import unpack
from governor_protos.messages import Decision, RowFlag
from hypothesis import given, settings
from hypothesis import strategies as st
from prefill_builders import KV_TOKENS, STARTED, prefill_of, prefilling_hello, queue_of

from controller_service.policies.base import (
    Knob,
    NoConfig,
    OrderPlan,
    Part,
    Policy,
    PolicyFailed,
    PolicyKind,
    PrefillPlan,
)
from controller_service.policies.eager import EAGER
from controller_service.policies.registry import ORDER_POLICIES, parse_policy
from controller_service.retraction import rows_to_retract
from controller_service.service.session import KNOB
from controller_service.service.state import Service, ServiceState
from controller_service.session import EngineSession
from controller_service.state import StepState

LINE = KnownPredictor(0.02, 1e-5, 1e-9, 1e-4)
Facts = list[dict[str, Any]]
KNOBS = ["branches", "prefill", KNOB]
FACTS = {
    "attained_s": 0.0,
    "waited_s": 0.0,
    "remaining_tokens": 100.0,
    "tokens_per_round": 1.0,
    "spread": 0.0,
    "retractions": 0,
}


def service_of(requests: Facts) -> Service:
    columns = {
        name: np.array([{**FACTS, **one}[name] for one in requests], dtype=type(FACTS[name]))
        for name in FACTS
    }
    remaining = columns["remaining_tokens"]
    unsure = np.array([one.get("unsure", 1.0) for one in requests])
    return Service(
        **columns,
        tokens_at=lambda at: remaining / unsure if at < 0.5 else remaining * unsure,
    )


def known(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name in (*FACTS, "unsure")}


def told(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name not in (*FACTS, "unsure")}


def state_with(waiting: Facts, rows: Facts, most_rows: int, kv: int = KV_TOKENS) -> StepState:
    hello = prefilling_hello()
    queue = prefill_of([told(one) for one in waiting])
    assert queue.most_tokens == hello.chunked_prefill_tokens
    service = ServiceState(
        most_rows=most_rows,
        can_retract=True,
        queue=service_of([known(one) for one in waiting]),
        rows=service_of([known(one) for one in rows]),
    )
    return msgspec.structs.replace(
        state_of([told(one) for one in rows]),
        prefill=queue,
        service=service,
        kv_total_tokens=kv,
    )


def order_of(policy: str, state: StepState) -> OrderPlan:
    order = parse_policy(policy).plan(state, LINE).order
    assert order is not None
    return order


def first_of(policy: str, state: StepState) -> list[int]:
    first = order_of(policy, state).first
    assert first is not None
    return first.tolist()


def yields_of(policy: str, state: StepState) -> list[int]:
    plan = parse_policy(policy).plan(state, LINE)
    return np.flatnonzero(rows_to_retract(state, plan)).tolist()


def test_the_shortest_remaining_time_goes_first_and_acceptance_makes_a_request_shorter() -> None:
    waiting = [
        {"remaining_tokens": 300.0},
        {"remaining_tokens": 600.0, "tokens_per_round": 4.0},
        {"remaining_tokens": 50.0},
    ]
    state = state_with(waiting, [], 8)
    assert first_of("laps_sd", state) == [2, 1, 0]
    assert first_of("sjf", state) == [2, 0, 1]


def test_until_acceptance_has_settled_the_paper_goes_by_attained_service() -> None:
    waiting = [
        {"remaining_tokens": 10.0, "spread": np.inf, "attained_s": 0.9},
        {"remaining_tokens": 900.0, "spread": np.inf, "attained_s": 0.2},
        {"remaining_tokens": 40.0, "spread": 0.01},
        {"remaining_tokens": 10.0, "spread": np.inf, "attained_s": 7.0},
    ]
    state = state_with(waiting, [], 8)
    assert first_of("laps_sd:prior=false:late_share=0", state) == [2, 1, 0, 3]
    assert first_of("laps_sd:late_share=0", state)[-1] == 1


def test_more_urgent_ones_come_first_and_then_whoever_has_waited_for_too_long() -> None:
    waiting = [
        {"remaining_tokens": 10.0},
        {"remaining_tokens": 999.0, "waited_s": 500.0, "age_s": 500.0},
        {"remaining_tokens": 999.0, "waited_s": 600.0, "age_s": 600.0},
        {"remaining_tokens": 5000.0, "priority": 1},
    ]
    state = state_with(waiting, [], 8)
    for policy in ("laps_sd", "las", "sjf"):
        assert first_of(f"{policy}:patience_s=100", state) == [3, 2, 1, 0]


def test_who_finds_no_room_stands_in_nobodys_way_unless_it_has_waited_for_too_long() -> None:
    large = {"missing_tokens": 9000, "remaining_tokens": 5.0}
    state = state_with([large, {"remaining_tokens": 900.0}], [], 8, kv=5000)
    assert first_of("laps_sd", state) == [1, 0]
    waited = {**large, "waited_s": 1e4, "age_s": 1e4}
    state = state_with([{"remaining_tokens": 900.0}, waited], [], 8, kv=5000)
    assert first_of("laps_sd", state) == [1, 0]


LONG = {"remaining_tokens": 20_000.0, "context_tokens": 500, "tpot_slo_s": NO_PROMISE_S}
SHORT = {"remaining_tokens": 20.0, "missing_tokens": 100}


def test_a_long_row_yields_its_place_to_a_short_request() -> None:
    state = state_with([SHORT], [LONG, {**LONG, "remaining_tokens": 30_000.0}], most_rows=2)
    assert yields_of("laps_sd", state) == [1]
    assert yields_of("laps_sd:preempt=false", state) == []
    assert yields_of("laps_sd", state_with([SHORT], [LONG, LONG], most_rows=3)) == []


def test_a_row_that_would_break_its_target_for_it_does_not_yield() -> None:
    """It would sit out until the other row ends: 40 rounds of 20 ms."""
    promised = {**LONG, "tpot_slo_s": 0.03, "output_tokens": 100}
    on_time = {**promised, "since_first_token_s": 3.5}
    ahead = {**promised, "since_first_token_s": 1.0}
    lost = {**promised, "since_first_token_s": 1000.0}
    for row, yields in ((on_time, []), (ahead, [0]), (lost, [0])):
        state = state_with([SHORT], [row, {**row, "remaining_tokens": 40.0}], most_rows=2)
        assert yields_of("laps_sd", state) == yields
        assert yields_of("laps_sd:protect=false", state) == [0]


def test_rows_yield_their_memory_as_far_as_it_is_needed() -> None:
    rows = [{**LONG, "context_tokens": 3000}, {**LONG, "context_tokens": 3000}, LONG]
    large = {**SHORT, "missing_tokens": 4000}
    state = msgspec.structs.replace(state_with([large], rows, 8, kv=7000), kv_used_tokens=6500)
    assert yields_of("laps_sd", state) == [0, 1]


def test_nobody_yields_where_it_does_not_pay() -> None:
    soon = {"remaining_tokens": 22.0, "context_tokens": 500}
    assert yields_of("laps_sd", state_with([SHORT], [LONG, soon], most_rows=2)) == []
    large = {**LONG, "remaining_tokens": 300.0, "context_tokens": 60_000}
    rows = [large, large]
    assert yields_of("laps_sd", state_with([SHORT], rows, most_rows=2)) == [0]
    # Not where others take all the memory meanwhile.
    full = state_with([SHORT], rows, most_rows=2, kv=120_000)
    assert yields_of("laps_sd", msgspec.structs.replace(full, kv_used_tokens=120_000)) == []
    often = {**LONG, "retractions": 2}
    assert yields_of("laps_sd", state_with([SHORT], [often, often], most_rows=2)) == []


def test_rows_yield_by_what_can_be_relied_on() -> None:
    row, unsure_row = (
        {**LONG, "remaining_tokens": 2000.0, "unsure": unsure} for unsure in (1.0, 90.0)
    )
    assert yields_of("laps_sd", state_with([SHORT], [row, row], most_rows=2)) == [0]
    assert yields_of("laps_sd", state_with([SHORT], [unsure_row] * 2, most_rows=2)) == []
    assert yields_of("laps_sd", state_with([{**SHORT, "unsure": 120.0}], [row] * 2, 2)) == []
    assert yields_of("laps_sd:caution=0", state_with([SHORT], [unsure_row] * 2, 2)) == [0]


def test_a_share_of_the_places_goes_to_who_is_late() -> None:
    overdue = {"remaining_tokens": 900.0, "waited_s": 400.0, "age_s": 400.0}
    waiting = [{"remaining_tokens": 10.0 + index} for index in range(19)]
    state = state_with([*waiting, overdue], [], 8)
    assert first_of("laps_sd:late_share=0.25", state)[0] == 19
    assert first_of("laps_sd:late_share=0", state)[0] == 0
    large = {**overdue, "missing_tokens": 9000}
    assert first_of("laps_sd", state_with([*waiting, large], [], 8, kv=5000))[-1] == 19
    late_row = {"remaining_tokens": 900.0, "waited_s": 400.0}
    state = state_with([*waiting, overdue], [late_row] * 2, 8)
    assert first_of("laps_sd:late_share=0.25", state)[0] == 0
    assert first_of("laps_sd:late_share=0.5", state)[0] == 19


def test_protected_and_pinned_rows_and_those_that_are_more_urgent_never_yield() -> None:
    for facts in (
        {"flags": int(RowFlag.PROTECTED)},
        {"flags": int(RowFlag.PINNED)},
        {"priority": 1},
        {"waited_s": 1e5},
    ):
        row = {**LONG, "remaining_tokens": 90_000.0, **facts}
        for policy in ("laps_sd", "las"):
            state = state_with([SHORT], [row, {**row, "attained_s": 50.0}], most_rows=2)
            assert yields_of(policy, state) == []


def test_las_lets_rows_yield_that_have_used_their_quantum_up() -> None:
    rows = [{"attained_s": 3.0}, {"attained_s": 0.5}, {"attained_s": 9.0}]
    las = "las:quantum_s=1"
    assert yields_of(las, state_with([SHORT], rows, most_rows=3)) == [2]
    assert yields_of(las, state_with([{**SHORT, "attained_s": 9.0}], rows, most_rows=3)) == []


requests = st.fixed_dictionaries(
    {
        "attained_s": st.floats(0, 100),
        "waited_s": st.sampled_from([0.0, 5.0, 50.0, 500.0]),
        "remaining_tokens": st.floats(1, 30_000),
        "tokens_per_round": st.floats(1, 6),
        "spread": st.sampled_from([0.0, 0.04, 0.3, np.inf]),
        "retractions": st.integers(0, 4),
        "priority": st.integers(-1, 1),
        "output_tokens": st.integers(0, 100),
        "age_s": st.floats(0, 1000, width=32),
    }
)
waiting_requests = st.builds(
    lambda facts, missing: {**facts, "missing_tokens": missing}, requests, st.integers(0, 9000)
)
running_rows = st.builds(
    lambda facts, flags, context: {**facts, "flags": flags, "context_tokens": context},
    requests,
    st.sampled_from([0, 0, 0, 1, 2, 4, 8]),
    st.integers(1, 9000),
)
POLICIES = (
    "laps_sd:patience_s=40",
    "laps_sd:patience_s=40,prior=false,margin=0",
    "las:patience_s=40",
    "sjf:patience_s=40",
    "fcfs",
)


@settings(deadline=None)
@given(
    st.lists(waiting_requests, max_size=8),
    st.lists(running_rows, max_size=8),
    st.integers(1, 10),
    st.sampled_from(POLICIES),
)
def test_whatever_waits_and_runs_the_promises_hold(
    waiting: Facts, rows: Facts, most_rows: int, policy: str
) -> None:
    state = msgspec.structs.replace(
        state_with(waiting, rows, most_rows, kv=40_000),
        kv_used_tokens=min(40_000, sum(row["context_tokens"] for row in rows)),
    )
    plan = parse_policy(policy).plan(state, LINE)
    assert plan.order is not None
    gone = np.flatnonzero(rows_to_retract(state, plan))
    for row in gone.tolist():
        assert rows[row]["flags"] == 0
        assert rows[row]["waited_s"] <= 40.0
        assert rows[row]["priority"] <= max(one["priority"] for one in waiting)
    running = [row for row in rows if not row["flags"] & RowFlag.UNBORN]
    assert len(gone) < max(1, len(running))
    assert not gone.size or not any(one["waited_s"] > 40.0 for one in waiting)
    first = plan.order.first
    if first is None:
        return
    assert sorted(first.tolist()) == list(range(len(waiting)))
    for before, after in zip(first[:-1].tolist(), first[1:].tolist(), strict=True):
        early, late = waiting[before], waiting[after]
        assert early["priority"] >= late["priority"]
        if early["priority"] == late["priority"] and late["waited_s"] > 40.0:
            # Nobody passes one that has waited for too long, but one that is older and has too.
            assert early["waited_s"] > 40.0
            assert early["age_s"] >= late["age_s"]


def test_the_order_is_asked_first_however_it_is_written() -> None:
    parts = parse_policy("turbospec+taper_plus+laps_sd+adaptive_chunk").parts
    assert [part.kind.name for part in parts] == [
        "laps_sd",
        "taper_plus",
        "adaptive_chunk",
        "turbospec",
    ]
    assert [part.kind.knob for part in parse_policy("sjf").parts] == [Knob.ORDER, Knob.BRANCHES]


@pytest.mark.parametrize(
    "plan",
    [
        OrderPlan(np.array([0, 0])),
        OrderPlan(np.array([2])),
        OrderPlan(retract=np.zeros(3, dtype=np.bool_)),
        OrderPlan(retract=np.zeros(1, dtype=np.int64)),
    ],
)
def test_what_is_no_order_is_refused(plan: OrderPlan) -> None:
    kind = PolicyKind("odd", lambda *_: plan, knob=Knob.ORDER)
    policy = Policy((Part(kind, NoConfig()), Part(EAGER, NoConfig())), "odd")
    with pytest.raises(PolicyFailed):
        policy.plan(state_with([SHORT, SHORT], [LONG], 8), LINE)


def session_of(knobs: list[str] = KNOBS, **facts: Any) -> EngineSession:
    hello = msgspec.structs.replace(prefilling_hello(**facts), knobs=knobs)
    return EngineSession(hello, LINE, lease_steps=4)


def decided(
    session: EngineSession,
    policy: Policy,
    waiting: Facts,
    rows: Facts,
) -> Decision:
    snapshot = msgspec.structs.replace(
        snapshot_of(rows_of(rows), 1), queue=queue_of(waiting), kv_total_tokens=KV_TOKENS
    )
    reply = decode_to_engine(session.decide(snapshot, policy))
    session.settle(snapshot, 1.0)
    assert isinstance(reply, Decision)
    return reply


MARK_ALL = Part(
    PolicyKind(
        "all",
        lambda state, *_: OrderPlan(np.array([1, 0]), np.ones(state.rows, dtype=np.bool_)),
        knob=Knob.ORDER,
    ),
    NoConfig(),
)


def test_a_decision_names_order_and_rows_that_may_be_retracted_but_never_all() -> None:
    policy = Policy((MARK_ALL, Part(EAGER, NoConfig())), "all")
    rows: Facts = [{}, {"flags": int(RowFlag.PROTECTED)}, {}]
    reply = decided(session_of(), policy, [{}, {}], rows)
    assert list(unpack("I", reply.prefill_first)) == [1002, 1001]
    assert reply.prefill_tokens == -1
    assert list(unpack("I", reply.retract)) == [1, 3]
    assert list(unpack("I", decided(session_of(), policy, [{}, {}], [{}, {}]).retract)) == [1]
    without = decided(session_of(["branches", "prefill"]), policy, [{}, {}], rows)
    assert not without.retract
    assert without.prefill_first


def test_deadlines_bind_first_where_prefill_names_an_order_too() -> None:
    def prefill_with(first: Any) -> Part:
        plan = PrefillPlan(512, first)
        return Part(PolicyKind("chunk", lambda *_: plan, knob=Knob.PREFILL), NoConfig())

    eager = Part(EAGER, NoConfig())
    both = Policy((MARK_ALL, eager, prefill_with(np.array([0, 1]))), "both")
    reply = decided(session_of(), both, [{}, {}], [{}, {}])
    assert list(unpack("I", reply.prefill_first)) == [1001, 1002]
    assert list(unpack("I", reply.retract)) == [1]
    budget = Policy((MARK_ALL, eager, prefill_with(None)), "budget")
    reply = decided(session_of(), budget, [{}, {}], [{}, {}])
    assert (reply.prefill_tokens, list(unpack("I", reply.prefill_first))) == (512, [1002, 1001])


@pytest.mark.parametrize("kind", ORDER_POLICIES, ids=lambda kind: kind.name)
def test_an_empty_engine_and_one_without_the_knob_are_left_alone(kind: PolicyKind) -> None:
    policy = parse_policy(kind.name)
    assert not decided(session_of(), policy, [], []).prefill_first
    assert not decided(session_of(["branches"]), policy, [{}], [{}]).retract


def test_the_request_in_the_middle_of_its_prefill_is_nobody_to_yield_for() -> None:
    started = {**SHORT, "flags": STARTED}
    assert yields_of("laps_sd", state_with([started], [LONG, LONG], most_rows=2)) == []
