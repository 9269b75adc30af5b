"""Promises that every policy keeps, and what each one does."""

from __future__ import annotations

import greedy_reference
import numpy as np
import pytest
from controller_builders import (
    DEFAULTS,
    NO_PROMISE_S,
    KnownPredictor,
    extra,
    serial,
    state_of,
    trunk,
)
from governor_protos.messages import Role, RowFlag
from hypothesis import given
from hypothesis import strategies as st

from controller_service.ledger import last_token_deadlines, tightest_slack_s
from controller_service.policies.registry import parse_policy
from controller_service.predictors.linear import OnlineLinearPredictor

EVERY_POLICY = [
    "off",
    "eager",
    "cap:1",
    "cap:2",
    "taper",
    "taper:utility=log1p",
    "taper:utility=priority,rho=0.5",
    "taper:slack=false",
    "taper_plus",
    "taper_plus:bank=false",
    "taper_plus:guard=false,floor=0",
    "random:0.7:3",
]

# Dyadic coefficients: every sum below is exact, so two orders of adding up must agree to the bit.
dyadic_lines = st.builds(
    lambda a, b, c: KnownPredictor(a * 2.0**-12, b * 2.0**-16, c * 2.0**-26),
    st.integers(0, 200),
    st.integers(0, 64),
    st.integers(0, 64),
)


def any_row(**facts):
    return st.fixed_dictionaries(
        {
            "role": st.sampled_from([0, 1, 2, 2, 2, 2]),
            "group_id": st.integers(0, 4),
            "flags": st.sampled_from([0, 0, 0, 0, 1, 2, 3]),
            "context_tokens": st.integers(0, 8192),
            "output_tokens": st.integers(0, 50),
            "priority": st.integers(-2, 5),
            "parked_steps": st.sampled_from([0, 0, 0, 1, 9]),
            "since_last_token_s": st.sampled_from([-1.0, 0.0, 0.01, 0.02, 0.04, 0.2]),
            "tpot_slo_s": st.sampled_from([0.02, 0.05, 0.1, NO_PROMISE_S]),
            **facts,
        }
    )


batches = st.lists(any_row(), max_size=40).map(lambda rows: [{**DEFAULTS, **row} for row in rows])


@given(batches, dyadic_lines, st.sampled_from(EVERY_POLICY))
def test_only_offered_rows_are_parked(rows, predictor, name):
    plan = parse_policy(name).plan(state_of(rows), predictor)
    for parked, row in zip(plan.park, rows, strict=True):
        if parked:
            assert row["role"] == Role.OPPORTUNISTIC
            assert not int(row["flags"]) & (RowFlag.PINNED | RowFlag.UNBORN)


@given(batches, dyadic_lines, st.sampled_from([p for p in EVERY_POLICY if "random" not in p]))
def test_every_request_with_a_running_row_advances(rows, predictor, name):
    plan = parse_policy(name).plan(state_of(rows), predictor)
    groups = {row["group_id"] for row in rows if greedy_reference.running(row)}
    advancing = {
        row["group_id"]
        for parked, row in zip(plan.park, rows, strict=True)
        if not parked and greedy_reference.running(row)
    }
    assert advancing == groups


@given(
    batches,
    dyadic_lines,
    st.sampled_from(["linear", "log1p", "priority"]),
    st.sampled_from([0.0, 0.5, 0.8, 1.0]),
)
def test_taper_admits_what_the_literal_loop_admits(rows, predictor, utility, rho):
    policy = parse_policy(f"taper:utility={utility},rho={rho}")
    plan = policy.plan(state_of(rows), predictor)
    wanted, budget = greedy_reference.taper(rows, predictor.predict, utility, rho)
    got = {i for i, row in enumerate(rows) if greedy_reference.running(row) and not plan.park[i]}
    assert got == wanted
    assert plan.budget_s == budget


@given(batches, dyadic_lines, st.sampled_from(["linear", "log1p", "priority"]))
def test_taper_keeps_its_budget(rows, predictor, utility):
    plan = parse_policy(f"taper:utility={utility}").plan(state_of(rows), predictor)
    assert plan.baseline_step_s <= plan.predicted_step_s <= plan.budget_s


@given(batches, st.sampled_from(["linear", "log1p", "priority"]))
def test_taper_is_eager_until_fitted(rows, utility):
    plan = parse_policy(f"taper:utility={utility}").plan(state_of(rows), OnlineLinearPredictor())
    assert not plan.park.any()
    assert plan.predicted_step_s == plan.baseline_step_s == plan.budget_s == 0.0


@given(batches, dyadic_lines, st.integers(1, 5))
def test_cap_leaves_the_width_and_no_more(rows, predictor, width):
    plan = parse_policy(f"cap:{width}").plan(state_of(rows), predictor)
    for group in range(1, 5):
        members = [
            i
            for i, row in enumerate(rows)
            if row["group_id"] == group and greedy_reference.running(row)
        ]
        fixed = [i for i in members if not greedy_reference.parkable(rows[i])]
        advancing = [i for i in members if not plan.park[i]]
        assert len(advancing) == max(len(fixed), min(width, len(members)))
        cut = [(rows[i]["output_tokens"], i) for i in members if plan.park[i]]
        kept = [(rows[i]["output_tokens"], i) for i in advancing if i not in fixed]
        assert not cut or not kept or max(kept) < min(cut)


def test_off_sends_one_row_per_request():
    rows = [trunk(1), extra(1), extra(1), serial(), extra(2, output_tokens=5), extra(2)]
    plan = parse_policy("off").plan(state_of(rows), KnownPredictor(0.01, 1e-4, 1e-7))
    assert plan.park.tolist() == [False, True, True, False, False, True]
    assert plan.predicted_step_s == plan.baseline_step_s


def test_a_group_without_a_trunk_sends_its_earliest_deadline():
    rows = [
        extra(1, since_last_token_s=0.01),
        extra(1, since_last_token_s=0.03),
        extra(1, since_last_token_s=0.03, output_tokens=2),
        extra(1, since_last_token_s=0.04, parked_steps=1),
    ]
    plan = parse_policy("off").plan(state_of(rows), KnownPredictor(0.01, 1e-4, 1e-7))
    assert plan.park.tolist() == [True, True, False, True]


def test_a_trunk_in_prefill_does_not_send_its_group():
    rows = [trunk(1, flags=int(RowFlag.UNBORN)), extra(1), extra(1)]
    plan = parse_policy("off").plan(state_of(rows), KnownPredictor(0.01, 1e-4, 1e-7))
    assert plan.park.tolist() == [False, False, True]


def test_deferred_rows_restart_their_deadline_and_do_not_bind():
    state = state_of(
        [serial(since_last_token_s=0.02), extra(1, since_last_token_s=0.04, parked_steps=2)]
    )
    deadlines = last_token_deadlines(state)
    np.testing.assert_allclose(deadlines, [0.03, 0.05], rtol=1e-6)
    assert tightest_slack_s(state, deadlines) == pytest.approx(0.03)


def test_slack_without_a_binding_row_is_unbounded():
    state = state_of([serial(flags=int(RowFlag.UNBORN))])
    assert tightest_slack_s(state, last_token_deadlines(state)) == NO_PROMISE_S


def test_slack_ignores_what_is_not_a_number():
    state = state_of([serial(since_last_token_s=float("nan")), serial(since_last_token_s=0.01)])
    assert tightest_slack_s(state, last_token_deadlines(state)) == pytest.approx(0.04)


def test_random_is_a_pure_function_of_seed_step_and_request():
    rows = [trunk(1), *[extra(1) for _ in range(200)]]
    predictor = KnownPredictor(0.01, 0, 0)

    def parked(name, step):
        return parse_policy(name).plan(state_of(rows, step), predictor).park

    assert parked("random:0.5:1", 9).tolist() == parked("random:0.5:1", 9).tolist()
    assert parked("random:0.5:1", 9).tolist() != parked("random:0.5:1", 10).tolist()
    assert parked("random:0.5:1", 9).tolist() != parked("random:0.5:2", 9).tolist()
    assert 60 < parked("random:0.5", 9).sum() < 140
    assert parked("random:0", 9).sum() == 0
    assert parked("random:1", 9).sum() == 200
