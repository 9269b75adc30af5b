"""What taper_plus does that taper does not, each switch on its own."""

from __future__ import annotations

import msgspec
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
from hypothesis import given, settings
from hypothesis import strategies as st
from test_controller_policies import any_row, dyadic_lines

from controller_service.groups import base_set
from controller_service.ledger import last_token_deadlines
from controller_service.paces import (
    LOST_S,
    Requests,
    banked_s,
    mean_width,
    pace_limits_s,
    requests_of,
    spare_s,
)
from controller_service.policies.registry import parse_policy
from controller_service.state import StepState

LINE = KnownPredictor(0.02, 0.001, 0.0)
"""20 ms a step and 1 ms a row."""

batches = st.lists(
    any_row(
        since_first_token_s=st.sampled_from([-1.0, 0.0, 0.1, 0.5, 2.0]),
        group_output_tokens=st.sampled_from([0, 5, 500]),
    ),
    max_size=40,
).map(lambda rows: [{**DEFAULTS, **row} for row in rows])


def advancing(policy: str, rows: list[dict[str, float]], predictor=LINE) -> int:
    """Rows that run."""
    plan = parse_policy(policy).plan(state_of(rows), predictor)
    return len(rows) - int(plan.park.sum())


def on_schedule(**facts: float) -> dict[str, float]:
    """A serial request with a target of 50 ms that has had exactly 50 ms a token."""
    return serial(output_tokens=100, since_first_token_s=5.0, since_last_token_s=0.0, **facts)


BRANCHES = [extra(1, output_tokens=10, since_last_token_s=0.0) for _ in range(60)]
TRUNK = trunk(1, output_tokens=10, since_last_token_s=0.0)


@given(batches, dyadic_lines, st.sampled_from([0.0, 0.5, 0.8, 1.0]))
def test_with_every_switch_off_it_is_taper(rows, predictor, rho) -> None:
    state = state_of(rows)
    off = f"taper_plus:bank=false,guard=false,floor=0,rho={rho}"
    mine = parse_policy(off).plan(state, predictor)
    theirs = parse_policy(f"taper:rho={rho}").plan(state, predictor)
    assert mine.park.tolist() == theirs.park.tolist()


def test_time_in_the_bank_is_lent() -> None:
    ahead = serial(output_tokens=100, since_first_token_s=3.0, since_last_token_s=0.0)
    on_time = on_schedule()
    assert advancing("taper_plus:margin=0", [on_time, TRUNK, *BRANCHES]) == 30
    assert advancing("taper_plus:margin=0", [ahead, TRUNK, *BRANCHES]) == 50


def test_steps_that_are_predicted_to_take_no_time_hold_nobody_up() -> None:
    assert advancing("taper_plus", [on_schedule(), TRUNK, *BRANCHES], KnownPredictor(0, 0, 0)) == 62


def test_a_margin_is_kept_back() -> None:
    assert advancing("taper_plus:margin=0.1", [on_schedule(), TRUNK, *BRANCHES]) < 30


def test_one_late_row_collapses_the_published_policy_and_not_this_one() -> None:
    late = serial(output_tokens=100, since_first_token_s=6.0, since_last_token_s=0.2)
    rows = [late, *[on_schedule() for _ in range(5)], TRUNK, *BRANCHES]
    assert advancing("taper:rho=1", rows) == 7
    assert advancing("taper_plus:margin=0", rows) == 30


def test_a_request_that_is_lost_binds_nobody() -> None:
    lost = serial(output_tokens=10, since_first_token_s=60.0, since_last_token_s=0.0)
    assert advancing("taper_plus:margin=0", [lost, on_schedule(), TRUNK, *BRANCHES]) == 30


def test_nobody_to_protect_lets_everyone_run() -> None:
    impossible = on_schedule(tpot_slo_s=0.01)
    rows = [impossible, TRUNK, *BRANCHES]
    assert advancing("taper:rho=1", rows) == 2
    assert advancing("taper_plus", rows) == len(rows)


def test_a_target_that_can_be_kept_is_not_sold_for_throughput() -> None:
    """However many branches wait, a newcomer of a class that can be served is not made to."""
    many = [extra(1, since_last_token_s=0.0) for _ in range(2000)]
    assert advancing("taper_plus:margin=0", [on_schedule(), TRUNK, *many]) == 30


def test_the_floor_feeds_branches_under_a_predictor_that_fears_everything() -> None:
    afraid = KnownPredictor(0.045, 0.002, 0.0)
    rows = [on_schedule(), TRUNK, *BRANCHES]
    assert advancing("taper_plus:guard=false,floor=0", rows, afraid) == 2
    assert advancing("taper_plus:guard=false,floor=0.5", rows, afraid) > 10


def test_prefill_between_the_steps_is_counted() -> None:
    rows = [on_schedule(), TRUNK, *BRANCHES]
    quiet = state_of(rows)
    busy = StepState(
        *[
            0.001 if name == "prefill_per_token_s" else getattr(quiet, name)
            for name in StepState.__struct_fields__
        ]
    )
    policy = parse_policy("taper_plus:margin=0")
    kept = [len(rows) - int(policy.plan(state, LINE).park.sum()) for state in (quiet, busy)]
    assert kept == [30, 15], "1 ms of prefill a token doubles what a row costs"


def test_groups_count_the_tokens_of_all_their_branches() -> None:
    rows = [
        trunk(1, output_tokens=7, group_output_tokens=40, since_first_token_s=1.0),
        extra(1, output_tokens=5, group_output_tokens=40, since_first_token_s=0.9),
        serial(output_tokens=3),
        trunk(2, output_tokens=4),
        extra(2, output_tokens=6),
    ]
    state = state_of(rows)
    found = requests_of(state, state.parkable.nonzero()[0])
    assert found.group_id.tolist() == [0, 1, 2]
    assert found.tokens.tolist() == [3, 40, 10], "told, or summed where the engine does not tell"
    assert found.rows.tolist() == [1, 2, 2]
    assert found.extra_rows.tolist() == [0, 1, 1]
    assert found.elapsed_s[1] == pytest.approx(1.0)


def request(tokens: float, elapsed_s: float, target_s: float = 0.05) -> Requests:
    one = np.ones(1)
    none = np.zeros(0, dtype=np.intp)
    group = np.zeros(1, dtype=np.uint32)
    return Requests(
        group, target_s * one, tokens * one, elapsed_s * one, one, one, 0 * one, none, none
    )


@given(
    st.integers(0, 2000),
    st.floats(0, 200),
    st.integers(1, 2000),
    st.floats(0, 0.2),
)
def test_who_goes_on_at_the_limit_keeps_the_promise(tokens, elapsed_s, remaining, margin) -> None:
    asked = request(tokens, elapsed_s)
    limit = float(
        pace_limits_s(
            asked, banked_s(asked, margin), np.array([float(remaining)]), 1e9, margin, 0.0
        )[0]
    )
    if limit == LOST_S:
        assert elapsed_s > (tokens + remaining) * 0.05 * (1 - margin) - 1e-9
        return
    average = (elapsed_s + remaining * limit) / (tokens + remaining)
    assert average <= 0.05 * (1 - margin) + 1e-9


# What a request needs for its own promise.

TREE = [extra(1, tpot_slo_s=0.012, output_tokens=10, since_last_token_s=0.0) for _ in range(7)]
TREE_TRUNK = trunk(1, tpot_slo_s=0.012, output_tokens=10, since_last_token_s=0.0)
"""Eight branches that are promised 12 ms per token over all of them: one row cannot make that."""


def test_branches_that_their_own_request_needs_are_not_parked() -> None:
    """One row gives a token in 21 ms, and 12 ms are promised: that takes two rows at every step,
    and more before the end, when branches have ended."""
    rows = [on_schedule(), TREE_TRUNK, *TREE]
    assert advancing("taper", rows) == 2, "as published"
    assert advancing("taper_plus:needs=false,guard=false,floor=0", rows) == 2
    assert advancing("taper_plus:guard=false,floor=0", rows) == len(rows)
    assert advancing("taper_plus", rows) == len(rows)


def test_a_needed_row_is_not_sold_for_the_tokens_of_others() -> None:
    """Long contexts cost more time than their tokens are worth beside a hundred others. The second
    group keeps its promise in no step, so somebody is hurt whatever is done."""
    dear = KnownPredictor(0.02, 1e-5, 1e-7)
    begun = {"output_tokens": 5, "since_first_token_s": 0.1}
    rows = [serial(tpot_slo_s=10.0) for _ in range(100)]
    for group, tpot_slo_s in ((1, 0.0155), (2, 0.0125)):
        promised = {**begun, "tpot_slo_s": tpot_slo_s}
        rows += [trunk(group, **promised), extra(group, **promised, context_tokens=50_000)]
    assert advancing("taper_plus:floor=0", rows, dear) == len(rows)


def test_where_nobody_is_hurt_every_row_advances() -> None:
    dear = KnownPredictor(0.02, 1e-5, 1e-7)
    rows = [serial(tpot_slo_s=10.0) for _ in range(100)]
    rows += [trunk(1), extra(1, context_tokens=50_000)]
    assert advancing("taper_plus:floor=0", rows, dear) == len(rows)


def test_a_branch_is_extra_where_one_row_makes_the_pace() -> None:
    """The same branches, promised 50 ms: one row is enough, and the others leave a step in time
    for the one that is on schedule."""
    rows = [on_schedule(), TRUNK, *BRANCHES]
    assert advancing("taper_plus:margin=0", rows) == 30


def test_a_lost_branching_request_keeps_its_fair_share() -> None:
    """It has the share of its rows that the step has of what it would take with every row."""
    late = {"tpot_slo_s": 0.012, "output_tokens": 10, "since_first_token_s": 500.0}
    lost = [trunk(2, **late), *[extra(2, **late) for _ in range(59)]]
    assert advancing("taper_plus:needs=false,guard=false,floor=0", [on_schedule(), *lost]) == 2
    plan = parse_policy("taper_plus:guard=false,floor=0").plan(
        state_of([on_schedule(), *lost]), LINE
    )
    share = 1 - plan.park.sum() / len(lost)
    assert share >= plan.predicted_step_s / (0.02 + 0.001 * 61) - 1 / len(lost)


needy_batches = st.lists(
    any_row(
        tpot_slo_s=st.sampled_from([0.004, 0.008, 0.012, 0.02, 0.05, NO_PROMISE_S]),
        output_tokens=st.integers(1, 60),
        since_first_token_s=st.sampled_from([0.0, 0.1, 0.5, 2.0]),
        group_output_tokens=st.sampled_from([0, 100, 500]),
        flags=st.sampled_from([0, 0, 0, 0, 0, 1]),
    ),
    max_size=60,
).map(lambda rows: [{**DEFAULTS, **row} for row in rows])


def keeps(rows: int, advancing: int, limit_s: float, step_s: float) -> bool:
    """Whether a request keeps its promise at this pace, by the words of ``mean_width``."""
    if limit_s == LOST_S or advancing * limit_s < step_s:
        return False
    steps = rows / advancing - 1 + sum(1 / n for n in range(1, advancing + 1))
    return advancing == rows or rows / steps * limit_s >= step_s


@given(needy_batches, dyadic_lines, st.sampled_from(["", "rho=0.5,", "margin=0.2,"]))
@settings(max_examples=300)
def test_nobody_is_left_short_while_nobody_with_a_tighter_claim_gains(
    rows, predictor, setting
) -> None:
    """Whoever would keep the promise if every row advanced has the rows for it, unless that keeps
    somebody else's promise, who would lose it."""
    state = state_of(rows)
    policy = parse_policy(f"taper_plus:{setting}floor=0")
    plan = policy.plan(state, predictor)
    config = policy.branches.config
    base = base_set(state, last_token_deadlines(state))
    requests = requests_of(state, base.extras)
    limits = pace_limits_s(
        requests,
        banked_s(requests, config.margin),
        np.maximum(requests.tokens, config.least_remaining),
        config.recovery_tokens,
        config.margin,
        predictor.predict(base.rows, base.context_tokens) / requests.rows,
    )
    shortest_s = plan.baseline_step_s
    limits = np.where(limits > shortest_s, shortest_s + config.rho * (limits - shortest_s), limits)
    every_s = float(predictor.predict(state.running_rows, state.running_context_tokens))
    advancing = ~plan.park[requests.by_request]
    by_eager, by_plan = [], []
    for index, start in enumerate(requests.starts):
        of_request = int(requests.rows[index])
        some = int(advancing[start : start + of_request].sum())
        limit_s = float(limits[index])
        by_eager.append(keeps(of_request, of_request, limit_s, every_s))
        by_plan.append(keeps(of_request, some, limit_s, plan.predicted_step_s))
    short = [eager and not plan for eager, plan in zip(by_eager, by_plan, strict=True)]
    gains = [plan and not eager for eager, plan in zip(by_eager, by_plan, strict=True)]
    assert not any(short) or any(gains)


@given(
    st.integers(0, 2000),
    st.floats(0, 200),
    st.integers(1, 2000),
    st.integers(1, 32),
    st.floats(0.001, 0.5),
)
def test_who_stands_still_for_what_it_can_spare_keeps_the_promise(
    tokens, elapsed_s, remaining, rows, step_s
) -> None:
    """Branches end one by one, so that many rows make less than many tokens a step."""
    asked = request(tokens, elapsed_s)
    asked = msgspec.structs.replace(
        asked, rows=np.array([float(rows)]), starts=np.zeros(1, dtype=np.intp)
    )
    left = np.array([float(remaining)])
    spare = float(spare_s(asked, 0.0, left, step_s)[0])
    promised_s = (tokens + remaining) * 0.05
    steps = remaining * sum(1 / n for n in range(1, rows + 1)) / rows
    if spare == LOST_S:
        assert elapsed_s + remaining / rows * step_s >= promised_s - 1e-9, "all rows, to the end"
    elif spare > 0.0:
        assert elapsed_s + spare + steps * step_s == pytest.approx(promised_s)
    else:
        assert elapsed_s + steps * step_s >= promised_s - 1e-9


@given(st.integers(1, 64), st.data())
def test_the_mean_width_is_that_of_branches_that_end_at_random(rows, data) -> None:
    """By drawing: branches with exponential lengths, served least progress first."""
    advancing = data.draw(st.integers(1, rows))
    width = float(mean_width(np.array([float(rows)]), np.array([float(advancing)]))[0])
    assert 1.0 - 1e-12 <= width <= advancing + 1e-12
    rng = np.random.default_rng(rows * 64 + advancing)
    lengths = np.sort(rng.exponential(size=(400, rows)), axis=1)
    steps = 0.0
    before = np.zeros(400)
    for ended in range(rows):  # all that live advance evenly, `advancing` rows at a time
        alive = rows - ended
        steps += ((lengths[:, ended] - before) * max(1.0, alive / advancing)).mean()
        before = lengths[:, ended]
    assert width == pytest.approx(lengths.sum(axis=1).mean() / steps, rel=0.25)
