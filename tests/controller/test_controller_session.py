"""The controller without its socket: handshakes, decisions, learning, and nonsense."""

from __future__ import annotations

import logging

import msgspec
import numpy as np
import pytest
from controller_builders import batch, extra, feedback_of, hello_of, rows_of, snapshot_of, trunk
from governor_protos import OURS, BadFrame, decode_to_engine, encode
from governor_protos.messages import Decision, Goodbye, Refusal, Welcome
from hypothesis import given
from hypothesis import strategies as st
from speculation_builders import drafting_hello

from controller_service.config import ControllerConfig
from controller_service.controller import Controller
from controller_service.observe.metrics import controller_metrics
from controller_service.observe.status import controller_status, recent_steps
from controller_service.policies.base import NoConfig, Part, Policy, PolicyKind, StepPlan
from controller_service.policies.registry import parse_policy

ME = b"identity"


def make(**settings):
    return Controller(ControllerConfig(**{"policy": "taper", **settings}))


def tell(controller, message, identity=ME, now_s=0.0):
    """Send one message the way the server does; the decoded reply."""
    message = controller.read(encode(message))
    reply = controller.answer(identity, message, now_s)
    if hasattr(message, "feedback"):
        controller.settle(identity, message, now_s)
    return None if reply is None else decode_to_engine(reply)


def parked(decision):
    return np.frombuffer(decision.park, "<u4").tolist()


def run_steps(controller, count, start=1, rows=None, **facts):
    rows = rows or batch(4, 4)
    reply = None
    for step in range(start, start + count):
        report = feedback_of(step - 1, rows=step % 13 + 1, context=500 * (step % 7 + 1), **facts)
        reply = tell(controller, snapshot_of(rows, step, [report]))
    return reply


def test_a_hello_is_welcomed():
    welcome = tell(make(policy="cap:2"), hello_of())
    assert isinstance(welcome, Welcome)
    assert welcome.policy == "cap:2"


def test_another_major_version_is_refused_and_both_are_named():
    refusal = tell(make(), hello_of(major=9))
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "incompatible_version"
    assert "9.0" in refusal.message
    assert OURS in refusal.message


def test_a_snapshot_before_hello_asks_for_an_introduction():
    controller = make()
    refusal = tell(controller, snapshot_of(batch(1, 2), 1))
    assert refusal.reason == "unknown_engine"
    tell(controller, hello_of())
    assert isinstance(tell(controller, snapshot_of(batch(1, 2), 2)), Decision)


def test_a_decision_answers_its_step_and_parks_what_the_policy_says():
    controller = make(policy="off", lease_steps=6)
    tell(controller, hello_of())
    decision = tell(controller, snapshot_of(rows_of([trunk(1), extra(1), extra(1)]), 41))
    assert (decision.for_step, decision.lease_steps, decision.policy) == (41, 6, "off")
    assert parked(decision) == [2, 3]
    assert decision.orders[0].branch_width == 1


def test_an_empty_batch_is_decided():
    controller = make()
    tell(controller, hello_of())
    assert tell(controller, snapshot_of(rows_of([]), 1)).park == b""


def test_taper_starts_once_the_predictor_is_fitted():
    controller = make()
    tell(controller, hello_of())
    tight = batch(4, 8, tpot_slo_s=0.011)
    assert run_steps(controller, 20, rows=tight).park == b""
    decision = run_steps(controller, 30, start=21, rows=tight)
    assert decision.predicted_step_s > 0
    assert parked(decision)
    assert decision.orders[0].extra_rows >= 0


def test_a_policy_can_be_switched_between_two_steps():
    controller = make(policy="eager")
    tell(controller, hello_of())
    rows = rows_of([trunk(1), extra(1)])
    assert tell(controller, snapshot_of(rows, 1)).policy == "eager"
    assert controller.set_policy(parse_policy("off")).label == "eager"
    decision = tell(controller, snapshot_of(rows, 2))
    assert (decision.policy, parked(decision), decision.orders[0].extra_rows) == ("off", [2], 0)


def test_steps_join_decisions_with_what_became_of_them():
    controller = make(policy="off")
    tell(controller, hello_of())
    rows = rows_of([trunk(1), extra(1)])
    tell(controller, snapshot_of(rows, 1))
    tell(controller, snapshot_of(rows, 2, [feedback_of(0), feedback_of(1, latency_s=0.02)]))
    first, second = msgspec.to_builtins(recent_steps(controller, "engine-1", 10))
    assert first["decision"] is None
    assert second["latency_s"] == 0.02
    assert second["decision"]["step"] == 1
    assert second["decision"]["parked_rows"] == 1
    assert second["decision"]["mandatory_rows"] == 1
    assert recent_steps(controller, "engine-1", 1)[0].step == 1
    assert recent_steps(controller, "nobody", 1) is None


def test_status_and_steps_tell_how_an_engine_drafts():
    controller = make()
    tell(controller, hello_of())
    (plain,) = controller_status(controller, 1.0, 2.0)["engines"]
    assert (plain["speculative_algorithm"], plain["drafting"]) == ("", None)
    controller = make()
    tell(controller, drafting_hello(switch_s=2e-4))
    rows = rows_of([trunk(1), trunk(2)])
    tell(controller, snapshot_of(rows, 2, [feedback_of(1, 2, draft_tokens=6, draft_length=3)]))
    (engine,) = controller_status(controller, 1.0, 2.0)["engines"]
    assert engine["speculative_algorithm"] == "EAGLE"
    assert engine["knobs"] == ["branches", "drafts"]
    assert engine["drafting"]["switch_s"] == 2e-4
    (step,) = recent_steps(controller, "engine-1", 10)
    assert (step.draft_tokens, step.draft_length) == (6, 3)


def test_status_and_metrics_tell_what_happened():
    controller = make()
    tell(controller, hello_of())
    run_steps(controller, 60, outcome=1)
    tell(controller, snapshot_of(batch(1, 1), 61, [feedback_of(60, outcome=77)]))
    (engine,) = controller_status(controller, 1.0, 2.0)["engines"]
    assert engine["outcomes"]["late"] == 60
    assert engine["predictor"]["fitted"]
    assert engine["predictor"]["mape_recent"] < 0.01
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in controller_metrics(controller)
        for sample in metric.samples
    }
    assert samples["governor_decisions_total", "taper"] == 61
    assert samples["governor_engine_outcomes_total", "unknown"] == 1
    assert samples["governor_predictor_fitted", "engine-1"] == 1
    assert samples["governor_sessions",] == 1


def test_the_same_incarnation_keeps_what_was_learnt_and_a_new_one_does_not():
    controller = make()
    tell(controller, hello_of())
    run_steps(controller, 60)
    tell(controller, hello_of(), identity=b"reconnected")
    assert [session.predictor.fitted for session, _ in controller.sessions] == [True]
    tell(controller, hello_of(incarnation="b"), identity=b"reconnected")
    assert [session.predictor.fitted for session, _ in controller.sessions] == [False]


def test_a_silent_engine_is_set_aside_and_comes_back():
    controller = make(session_expiry_s=60.0)
    tell(controller, hello_of())
    run_steps(controller, 60)
    controller.sessions.expire(59.0)
    assert len(controller.sessions) == 1
    controller.sessions.expire(61.0)
    assert len(controller.sessions) == 0
    assert tell(controller, snapshot_of(batch(1, 1), 99), now_s=62.0).reason == "unknown_engine"
    tell(controller, hello_of(), now_s=62.0)
    assert [session.predictor.fitted for session, _ in controller.sessions] == [True]


def test_goodbye_ends_a_session():
    controller = make()
    tell(controller, hello_of())
    assert tell(controller, Goodbye("done")) is None
    assert len(controller.sessions) == 0


def test_the_number_of_engines_is_bounded():
    controller = make(max_engines=2)
    for name in ("one", "two"):
        assert isinstance(tell(controller, hello_of(name), identity=name.encode()), Welcome)
    assert tell(controller, hello_of("three"), identity=b"3").reason == "too_many_engines"


def failing_policy(state, predictor, config):
    raise RuntimeError("a bug in somebody's policy")


def test_a_failing_policy_costs_decisions_and_nothing_else(caplog):
    controller = make()
    tell(controller, hello_of())
    controller.set_policy(Policy((Part(PolicyKind("odd", failing_policy), NoConfig()),), "odd"))
    with caplog.at_level(logging.ERROR):
        for step in range(1, 6):
            assert tell(controller, snapshot_of(batch(1, 2), step)) is None
    assert len(caplog.records) == 1
    assert controller.stats.policy_errors == 5
    controller.set_policy(parse_policy("eager"))
    assert isinstance(tell(controller, snapshot_of(batch(1, 2), 6)), Decision)


def test_a_policy_from_elsewhere_cannot_park_what_was_not_offered():
    def everything(state, predictor, config):
        return StepPlan(park=np.ones(state.rows, dtype=np.bool_))

    controller = make()
    tell(controller, hello_of())
    controller.set_policy(Policy((Part(PolicyKind("all", everything), NoConfig()),), "all"))
    decision = tell(controller, snapshot_of(rows_of([trunk(1), extra(1), extra(1, flags=1)]), 1))
    assert parked(decision) == [2]


@pytest.mark.parametrize("figure", [float("nan"), float("inf"), -float("inf"), -5.0, 1e300])
def test_figures_out_of_bounds_still_make_a_valid_decision(figure):
    def odd(state, predictor, config):
        return StepPlan(state.parkable, figure, figure, figure, figure)

    controller = make()
    tell(controller, hello_of())
    controller.set_policy(Policy((Part(PolicyKind("odd", odd), NoConfig()),), "odd"))
    assert isinstance(tell(controller, snapshot_of(batch(1, 2), 1)), Decision)


def test_negative_contexts_are_refused_and_counted():
    controller = make()
    tell(controller, hello_of())
    refusal = tell(controller, snapshot_of(rows_of([trunk(1, context_tokens=-4)]), 1))
    assert refusal.reason == "invalid_message"
    assert controller.stats.bad_frames["rows"] == 1


def test_refusals_of_bad_frames_are_rationed():
    controller = make()
    replies = [controller.refuse_frame("undecodable", ValueError("x"), 5.0) for _ in range(1000)]
    assert 0 < sum(reply is not None for reply in replies) <= 20
    assert controller.stats.bad_frames["undecodable"] == 1000


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@given(st.data(), st.sampled_from(["taper", "taper:log1p", "cap:2", "off", "random:0.5"]))
def test_any_bytes_in_the_columns_get_an_answer(data, name):
    controller = make(policy=name)
    tell(controller, hello_of())
    run_steps(controller, 40)
    rows = batch(2, 3)
    columns = {
        field: data.draw(st.binary(min_size=len(column), max_size=len(column)))
        for field, column in msgspec.structs.asdict(rows).items()
    }
    columns["context_tokens"] = rows.context_tokens
    decision = tell(controller, snapshot_of(type(rows)(**columns), 100))
    assert isinstance(decision, Decision)
    offered = {
        request
        for request, role in zip(
            np.frombuffer(columns["request_id"], "<u4"), columns["role"], strict=True
        )
        if role == 2
    }
    assert set(parked(decision)) <= offered


@given(st.binary(max_size=400))
def test_garbage_is_a_bad_frame_or_a_message(frame):
    controller = make()
    try:
        message = controller.read(frame)
    except BadFrame:
        return
    controller.answer(ME, message, 0.0)


def test_orders_are_renewed_every_16_decisions_and_not_at_each():
    calls = []

    def counting(state, predictor, config, max_rows):
        calls.append(state.for_step)
        return parse_policy("eager").standing_orders(state, predictor, max_rows)

    controller = make()
    tell(controller, hello_of())
    kind = PolicyKind("eager", parse_policy("eager").branches.kind.decide, orders=counting)
    controller.set_policy(Policy((Part(kind, NoConfig()),), "eager"))
    for step in range(1, 65):
        tell(controller, snapshot_of(batch(1, 2), step))
    assert len(calls) == 5
