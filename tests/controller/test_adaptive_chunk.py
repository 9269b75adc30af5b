"""``adaptive_chunk``: when it holds, whom it takes, how much, and that nobody starves."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from controller_builders import KnownPredictor, serial, state_of
from hypothesis import given
from hypothesis import strategies as st
from prefill_builders import (
    MOST_TOKENS,
    NEVER,
    STARTED,
    prefilling_state,
)

from controller_service.policies.adaptive_chunk import AdaptiveChunkConfig
from controller_service.policies.base import OWN_CHOICE, PolicyFailed, PrefillPlan
from controller_service.policies.registry import parse_policy
from controller_service.state import StepState

A, B, C, D = 0.017, 6e-5, 5e-8, 9e-5


LINE = KnownPredictor(A, B, C, D)
TIGHT = "adaptive_chunk:overhead=1,pressure=0.05"
EASY = {"tpot_slo_s": NEVER}
"""A row that was promised nothing."""


def plan_of(
    state: StepState, text: str = "adaptive_chunk", predictor: KnownPredictor = LINE
) -> PrefillPlan:
    plan = parse_policy(text).plan(state, predictor).prefill
    assert plan is not None
    return plan


def test_it_holds_while_there_is_time_and_goes_when_there_is_not() -> None:
    budgets = []
    for age_s in (0.0, 0.3, 0.6, 0.75):
        state = prefilling_state([{"age_s": age_s}], [serial(**EASY)] * 4)
        budgets.append(plan_of(state).tokens)
    assert budgets[0] == 0
    assert budgets[-1] == 1000
    assert budgets == sorted(budgets)


def test_who_waits_is_gathered() -> None:
    """The one that is due takes along those that are not."""
    waiting = [{"age_s": 0.05}, {"age_s": 0.3, "missing_tokens": 300}, {"age_s": 0.2}]
    plan = plan_of(prefilling_state(waiting, [serial(**EASY)] * 4), "adaptive_chunk:pressure=0.1")
    assert plan.tokens == 2300
    assert plan.first is not None
    assert sorted(plan.first.tolist()) == [0, 1, 2]


def test_a_branch_is_not_held() -> None:
    """SGLang sends branches once their prompt is in the cache: their client has waited before, and
    the pace that their request was promised takes all of them."""
    serial_one = {"age_s": 0.0, "missing_tokens": 1}
    decoding = [serial(**EASY)] * 4
    assert plan_of(prefilling_state([serial_one], decoding)).tokens == 0
    assert plan_of(prefilling_state([{**serial_one, "group_id": 7}], decoding)).tokens == 1


def test_one_who_would_be_late_for_it_is_not_made_to_wait_for_others() -> None:
    """All who are prefilled in a step have their first token at its end."""
    waiting = [{"age_s": 0.05}, {"age_s": 0.85, "missing_tokens": 300}, {"age_s": 0.2}]
    plan = plan_of(prefilling_state(waiting, [serial(**EASY)] * 4))
    assert plan.tokens == 300


def test_who_may_come_meanwhile_limits_a_step() -> None:
    waiting = [{"missing_tokens": 20_000, "ttft_slo_s": 4.0}]
    row = serial(**EASY, ttft_slo_s=1.0)
    plan = plan_of(prefilling_state(waiting, [row]))
    assert A + B + (C + D) * plan.tokens <= 0.35 < A + B + (C + D) * (plan.tokens + 300)


def test_nothing_is_held_where_nobody_decodes() -> None:
    plan = plan_of(prefilling_state([{"age_s": 0.0}], []))
    assert plan.tokens == MOST_TOKENS


def test_who_was_promised_nothing_is_not_held() -> None:
    plan = plan_of(prefilling_state([{"age_s": 0.0, "ttft_slo_s": NEVER}], [serial(**EASY)] * 4))
    assert plan.tokens == 1000


def test_before_anything_was_learnt_it_is_the_engines_choice() -> None:
    predictor = KnownPredictor(A, B, C, D)
    predictor.fitted = False
    plan = plan_of(prefilling_state([{}], [serial()]), predictor=predictor)
    assert plan.tokens == OWN_CHOICE


def test_an_engine_without_the_knob_is_left_alone() -> None:
    assert parse_policy("adaptive_chunk").plan(state_of([serial()]), LINE).prefill is None


def test_a_chunk_leaves_those_who_decode_half_of_what_they_can_spare() -> None:
    """A row at its 64th token with a target of 40 ms: what it banked, and what comes."""
    row = serial(output_tokens=64, since_first_token_s=64 * 0.038, tpot_slo_s=0.04)
    waiting = [{"age_s": 0.5, "missing_tokens": 30_000, "ttft_slo_s": 30.0, "flags": STARTED}]
    plan = plan_of(
        prefilling_state(waiting, [row]), "adaptive_chunk:pressure=0.05,reach=1,overhead=1"
    )
    step_s = A + B + C * 100
    spare_s = 64 * 0.04 * 0.97 - 64 * 0.038 + 64 * (0.04 * 0.97 - step_s)
    stall_s = A + B + (C + D) * plan.tokens
    assert 512 <= plan.tokens < 8192
    assert stall_s <= 0.5 * spare_s
    assert A + B + (C + D) * (plan.tokens + 300) > 0.5 * spare_s


def test_first_tokens_come_before_the_pace_of_those_who_decode() -> None:
    """Both were promised; the others can win back what a chunk takes, and a first token cannot."""
    thread = serial(output_tokens=64, since_first_token_s=64 * 0.0597, tpot_slo_s=0.04)
    due = [{"age_s": 0.73, "missing_tokens": 650}] * 4
    assert plan_of(prefilling_state(due, [thread]), TIGHT).tokens == 2600
    in_time = [{"age_s": 0.1, "missing_tokens": 650}] * 4
    assert plan_of(prefilling_state(in_time, [thread]), TIGHT).tokens < 1000


def test_of_chunks_with_which_all_are_in_time_the_one_that_hurts_nobody_is_taken() -> None:
    """One that hangs by a thread can spare what a prompt takes, but not what two take."""
    row = serial(output_tokens=64, since_first_token_s=64 * 0.0586, tpot_slo_s=0.04)
    due = [{"age_s": 0.3, "missing_tokens": 900}] * 2
    assert plan_of(prefilling_state(due, [row]), TIGHT).tokens <= 900


def test_between_two_steps_of_prefill_others_decode_while_there_is_time() -> None:
    row = serial(**EASY)
    state = prefilling_state([{"age_s": 0.7}], [row])
    again = msgspec.structs.replace(state.prefill, in_a_row=1)
    assert plan_of(state).tokens
    assert not plan_of(msgspec.structs.replace(state, prefill=again)).tokens
    pressing = prefilling_state([{"age_s": 0.7, "missing_tokens": 1700}], [row])
    again = msgspec.structs.replace(pressing.prefill, in_a_row=3)
    assert plan_of(msgspec.structs.replace(pressing, prefill=again)).tokens


def test_a_short_prompt_passes_a_long_one_that_has_started() -> None:
    waiting = [
        {"missing_tokens": 20_000, "ttft_slo_s": 20.0, "flags": STARTED},
        {"missing_tokens": 400, "age_s": 0.75},
        {"missing_tokens": 300, "age_s": 0.7},
    ]
    plan = plan_of(prefilling_state(waiting, [serial(**EASY)]))
    assert plan.first is not None
    assert plan.first.tolist() == [1, 2, 0]
    assert plan.tokens == 700


def test_a_prompt_that_could_only_be_cut_does_not_pass() -> None:
    waiting = [
        {"missing_tokens": 20_000, "ttft_slo_s": 40.0, "flags": STARTED},
        {"missing_tokens": 9000, "ttft_slo_s": 1.8, "age_s": 0.8},
    ]
    plan = plan_of(prefilling_state(waiting, [serial(**EASY)]))
    assert plan.first is not None
    assert plan.first.tolist()[0] == 0


@pytest.mark.parametrize(
    "wrong",
    [
        PrefillPlan(tokens=-2),
        PrefillPlan(late_tokens=1 << 40),
        PrefillPlan(first=np.array([0, 0])),
        PrefillPlan(first=np.array([2])),
        PrefillPlan(first=np.array([-1])),
    ],
    ids=range(5),
)
def test_nonsense_of_a_policy_is_no_plan(wrong: PrefillPlan) -> None:
    policy = parse_policy("fixed_chunk:512")
    branches, prefill = policy.parts
    kind = msgspec.structs.replace(prefill.kind, decide=lambda *_: wrong)
    parts = (branches, msgspec.structs.replace(prefill, kind=kind))
    broken = msgspec.structs.replace(policy, parts=parts)
    with pytest.raises(PolicyFailed):
        broken.plan(prefilling_state([{}, {}], [serial()]), LINE)


def test_what_rides_along_is_counted_by_those_who_spend_afterwards() -> None:
    rows = [serial(**EASY)] * 4
    state = prefilling_state([{"age_s": 0.75}], rows, mixes_chunks=True)
    plan = parse_policy("adaptive_chunk+taper_plus").plan(state, LINE)
    alone = parse_policy("taper_plus").plan(state, LINE)
    assert plan.prefill is not None
    assert plan.prefill.riding_tokens == 1000
    assert plan.predicted_step_s == pytest.approx(alone.predicted_step_s + 1000 * D)
    after = parse_policy("taper_plus+adaptive_chunk").plan(state, LINE)
    assert after.predicted_step_s == pytest.approx(alone.predicted_step_s)


def test_where_they_take_turns_nothing_rides_along() -> None:
    state = prefilling_state([{"age_s": 0.75}], [serial(**EASY)] * 4)
    plan = parse_policy("adaptive_chunk+taper_plus").plan(state, LINE)
    assert plan.prefill is not None
    assert plan.prefill.tokens == 1000
    assert plan.prefill.riding_tokens == 0


WAITING = st.lists(
    st.fixed_dictionaries(
        {
            "missing_tokens": st.integers(0, 40_000),
            "ttft_slo_s": st.sampled_from([0.01, 0.5, 1.0, 20.0, NEVER]),
            "age_s": st.floats(0, 100),
        }
    ),
    max_size=12,
)


@given(WAITING, st.booleans(), st.booleans(), st.integers(0, 30), st.integers(0, 64))
def test_any_queue_gives_a_plan_within_bounds(
    waiting: list[dict[str, float]], started: bool, mixes: bool, rows: int, step: int
) -> None:
    if waiting and started:
        waiting[0] = {**waiting[0], "flags": STARTED}
    state = prefilling_state(waiting, [serial()] * rows, step, mixes_chunks=mixes)
    plan = plan_of(state)
    assert 0 <= plan.tokens <= MOST_TOKENS
    assert 0 < plan.late_tokens <= MOST_TOKENS
    assert rows or plan.tokens
    assert plan.riding_tokens == 0 or mixes
    if plan.first is None:
        return
    assert len(set(plan.first.tolist())) == len(plan.first)
    if waiting and started and plan.first[0] != 0 and 0 in plan.first.tolist():
        before = plan.first[: plan.first.tolist().index(0)]
        missing = [max(1, waiting[index]["missing_tokens"]) for index in before]
        assert sum(missing) <= plan.tokens


@given(st.integers(0, 1000), st.integers(1, 12), st.floats(0.1, 0.9))
def test_nobody_starves_under_a_stream_of_those_due_earlier(
    seed: int, turn: int, load: float
) -> None:
    """A long prompt whose deadline has passed, and short ones that never stop coming, more of them
    than can be served: after ``patience`` it advances at one step in ``turn`` at least."""
    rng = np.random.default_rng(seed)
    config = AdaptiveChunkConfig(turn=turn)
    missing, age_s, steps, short = 6000, 0.0, 0, 12.0 * load
    while missing > 0:
        shorts = [
            {"missing_tokens": int(rng.integers(500, 1500)), "age_s": float(rng.uniform(0.2, 0.5))}
            for _ in range(rng.poisson(short))
        ]
        long = {"missing_tokens": missing, "age_s": age_s, "ttft_slo_s": 1.0}
        state = prefilling_state([long, *shorts], [serial()] * 4, steps)
        plan = plan_of(state, f"adaptive_chunk:turn={turn}")
        if plan.tokens and (plan.first is None or plan.first[0] == 0):
            missing -= plan.tokens
        age_s += 0.5
        steps += 1
        past = max(0.0, age_s - config.patience)
        assert past / 0.5 <= turn * (2 + 6000 / config.least_tokens)
