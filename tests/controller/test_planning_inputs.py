"""What a plan is made from besides the batch: prefill per token, and how long a plan stands."""

from __future__ import annotations

import pytest
from controller_builders import KnownPredictor, extra, feedback_of, state_of, trunk

from controller_service.policies.registry import parse_policy
from controller_service.prefill_share import PrefillShare
from controller_service.replanning import Planner

PREFILL, DECODE = 1, 0


def test_prefill_is_counted_per_decoded_token() -> None:
    share = PrefillShare()
    for step in range(0, 2000, 2):
        share.add(feedback_of(step, rows=20, kind=DECODE, latency_s=0.05))
        share.add(feedback_of(step + 1, rows=1, kind=PREFILL, latency_s=0.04))
    assert share.per_token_s == pytest.approx(0.04 / 20, rel=0.02)


def test_prefill_that_has_stopped_is_forgotten() -> None:
    share = PrefillShare()
    share.add(feedback_of(1, rows=10, kind=DECODE))
    share.add(feedback_of(2, kind=PREFILL, latency_s=5.0))
    for step in range(3, 3000):
        share.add(feedback_of(step, rows=10, kind=DECODE))
    assert share.per_token_s < 1e-6


def test_nothing_decoded_yet_is_no_share() -> None:
    share = PrefillShare()
    share.add(feedback_of(1, kind=PREFILL, latency_s=5.0))
    assert share.per_token_s == 0.0


def batch(step: int, branches: int = 4):
    return state_of([trunk(1), *[extra(1) for _ in range(branches)]], step)


def test_a_plan_stands_for_as_long_as_it_was_told_to() -> None:
    planner, policy = Planner(8), parse_policy("random:0.5:1")
    predictor = KnownPredictor(0.01, 0.0, 0.0)
    made = [planner.plan(batch(step), policy, predictor).park.tolist() for step in range(10, 26)]
    assert made[0] == made[7] == policy.plan(batch(10), predictor).park.tolist()
    assert made[8] == made[15] == policy.plan(batch(18), predictor).park.tolist()


def test_rows_that_came_since_the_plan_advance() -> None:
    planner, policy = Planner(8), parse_policy("off")
    predictor = KnownPredictor(0.01, 0.0, 0.0)
    planner.plan(batch(10, branches=2), policy, predictor)
    later = planner.plan(batch(11, branches=4), policy, predictor).park
    assert later.tolist() == [False, True, True, False, False]


def test_another_policy_plans_at_once() -> None:
    planner, predictor = Planner(8), KnownPredictor(0.01, 0.0, 0.0)
    assert planner.plan(batch(10), parse_policy("off"), predictor).park.sum() == 4
    assert planner.plan(batch(11), parse_policy("eager"), predictor).park.sum() == 0
