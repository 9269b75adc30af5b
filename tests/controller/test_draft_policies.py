"""Policies about drafts: bounds that hold whatever the batch, and the choices that they promise."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from controller_builders import KnownPredictor, extra, serial, state_of, trunk
from governor_protos.limits import MAX_DURATION_S
from hypothesis import given, settings
from hypothesis import strategies as st
from speculation_builders import LENGTHS, draft_state, drafting_state

from controller_service.policies.base import DraftPlan, Knob, PolicyFailed
from controller_service.policies.draft_candidates import own_candidates, within_budget
from controller_service.policies.drafting import Batch, Protection
from controller_service.policies.registry import DRAFT_POLICIES, UnknownPolicy, parse_policy
from controller_service.predictors.base import NO_DRAFTING, DraftingCost
from controller_service.speculation.drafting import DraftState
from controller_service.speculation.trees import bucket_of, levels
from controller_service.state import StepState

LINE = KnownPredictor(0.016, 6e-5, 5e-8)
FLAT = KnownPredictor(0.016, 0.0, 0.0)
POLICIES = (
    "turbospec",
    "turbospec:per_request=false",
    "turbospec:per_request=false,estimate=average,value=sum,reluctance=1.1",
    "turbospec:value=sum",
    "adaptive_candidates",
    "draft_tree",
    "draft_tree:budget=3",
    "fixed_draft:4",
)
CAREFUL = tuple(policy for policy in POLICIES if not policy.startswith("fixed"))
PROTECTING = tuple(policy for policy in CAREFUL if "average" not in policy)
"""The published average over the batch knows nobody's own tokens."""
ONE_FOR_ALL = ("turbospec:per_request=false", "adaptive_candidates")


def drafts_of(policy: str, state: StepState, predictor: KnownPredictor = LINE) -> DraftPlan:
    plan = parse_policy(policy).plan(state, predictor)
    assert plan.drafts is not None
    return plan.drafts


@st.composite
def states(draw: st.DrawFn, **facts: object) -> StepState:
    count = draw(st.integers(1, 24))
    rows = []
    for number in range(count):
        make = draw(st.sampled_from([serial, lambda **f: trunk(1, **f), lambda **f: extra(1, **f)]))
        rows.append(
            make(
                context_tokens=draw(st.integers(1, 4000)),
                output_tokens=draw(st.integers(1, 400)),
                since_first_token_s=draw(st.floats(0.001, 20)),
                tpot_slo_s=draw(st.sampled_from([0.015, 0.02, 0.03, 0.05, 0.5, MAX_DURATION_S])),
                request_id=number + 1,
            )
        )
    width = draw(st.sampled_from([1, 1, 3]))
    changes = {
        "width": width,
        "most_tokens": draw(st.sampled_from([7, 16])) if width > 1 else 7,
        "is_ragged": draw(st.booleans()),
        "takes_budget": draw(st.booleans()),
        "last_length": draw(st.sampled_from([-1, *LENGTHS])),
        "lengths": draw(st.sampled_from([LENGTHS, (0, 3), (0,), (2, 5)])),
    } | facts
    lengths = changes["lengths"]
    drafts = draft_state(
        draw(st.lists(st.floats(0.01, 0.99), min_size=count, max_size=count)),
        by_position=np.ones(max(1, lengths[-1])),
        measured_tokens=np.full(len(lengths), np.nan),
        **changes,
    )
    return drafting_state(
        rows, drafts, kv_free=draw(st.integers(0, 400)), for_step=draw(st.integers(0, 200))
    )


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=25, deadline=None)
@given(state=states())
def test_drafts_stay_within_what_the_engine_can_do(policy: str, state: StepState) -> None:
    drafts = drafts_of(policy, state)
    known = state.drafts
    assert known is not None
    assert drafts.length in known.lengths
    assert drafts.draft_tokens >= 0
    if drafts.caps is not None:
        assert drafts.caps.max(initial=0) <= known.most_tokens
        if known.width == 1:
            assert drafts.caps.max(initial=0) <= max(drafts.length, 0)
        if not drafts.shares_out:
            assert drafts.draft_tokens <= int(drafts.caps[state.running].sum())
    assert not drafts.shares_out or known.takes_budget


@pytest.mark.parametrize("policy", CAREFUL)
@settings(max_examples=25, deadline=None)
@given(state=states(lengths=LENGTHS))
def test_drafts_fit_kv_memory(policy: str, state: StepState) -> None:
    drafts = drafts_of(policy, state)
    free = state.kv_total_tokens - state.kv_used_tokens - state.running_rows
    assert drafts.draft_tokens <= max(0, free)


@pytest.mark.parametrize("policy", PROTECTING)
@settings(max_examples=50, deadline=None)
@given(state=states(lengths=LENGTHS, width=1, takes_budget=False))
def test_nobody_who_can_keep_a_target_is_pushed_past_it(policy: str, state: StepState) -> None:
    """As far as predictions go: the step's time against each request's expected tokens. Where each
    request has a draft of its own its chance is known to the level, and no closer."""
    plan = parse_policy(policy).plan(state, LINE)
    known, drafts = state.drafts, plan.drafts
    assert known is not None
    assert drafts is not None
    if not drafts.length:
        return
    batch = Batch.of(state, LINE, plan, known)
    caps = np.full(state.rows, drafts.length) if drafts.caps is None else drafts.caps
    if known.is_ragged and policy not in ONE_FOR_ALL:
        known = msgspec.structs.replace(known, acceptance=levels()[bucket_of(known.acceptance)])
    reached = known.survival(known.longest)[batch.rows].cumsum(axis=1)
    mine = caps[batch.rows].astype(int)
    tokens = 1.0 + np.where(mine > 0, reached[np.arange(len(mine)), np.maximum(mine, 1) - 1], 0.0)
    seconds = batch.step_s(np.array([float(mine.sum())]), np.array([float(drafts.length)]))[0]
    assert Protection(batch).allows(float(seconds) * (1 - 1e-9), tokens)


def test_protection_means_what_it_says() -> None:
    """Two requests of 30 ms a token: a step of 50 ms is fine for who is given two tokens."""
    rows = [serial(tpot_slo_s=0.03, output_tokens=100, since_first_token_s=3.0)] * 2
    rows = [{**row, "request_id": number} for number, row in enumerate(rows)]
    known = draft_state([0.9, 0.1])
    state = drafting_state(rows, known)
    plan = parse_policy("eager").plan(state, FLAT)
    protection = Protection(Batch.of(state, FLAT, plan, known))
    assert protection.allows(0.016, np.array([1.0, 1.0]))
    assert protection.allows(0.05, np.array([2.0, 2.0]))
    assert not protection.allows(0.05, np.array([3.0, 1.0])), "the other pays for it"


def test_where_nobody_has_a_target_nobody_is_protected() -> None:
    rows = [serial(tpot_slo_s=MAX_DURATION_S, request_id=number) for number in range(4)]
    known = draft_state([0.9] * 4)
    state = drafting_state(rows, known)
    plan = parse_policy("eager").plan(state, LINE)
    assert Protection(Batch.of(state, LINE, plan, known)).allows(99.0, np.ones(4))


def rows_without_targets(count: int) -> list[dict[str, float]]:
    return [serial(tpot_slo_s=MAX_DURATION_S, request_id=n + 1) for n in range(count)]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 128), st.floats(0.02, 0.98), st.floats(0, 3e-3))
def test_one_length_for_all_is_the_one_of_the_formula(
    count: int, chance: float, step_s: float
) -> None:
    """goodput(k) = B (1 - a^(k+1)) / (1 - a) / (T_draft(k) + T_target(B, k))"""
    known = draft_state([chance] * count, is_ragged=False, cost=DraftingCost(step_s))
    state = drafting_state(rows_without_targets(count), known)
    context = float(state.running_context_tokens)

    def goodput(k: int) -> float:
        tokens = count * (1 - chance ** (k + 1)) / (1 - chance)
        return tokens / (LINE.predict(count, context, 0.0, k * count) + k * step_s)

    best = max(LENGTHS, key=goodput)
    chosen = drafts_of("turbospec:keep=0,probe=0", state).length
    assert goodput(chosen) == pytest.approx(goodput(best))


def test_good_drafts_are_made_and_bad_ones_are_not() -> None:
    rows = rows_without_targets(64)
    good = drafts_of("turbospec", drafting_state(rows, draft_state([0.95] * 64)))
    bad = drafts_of("turbospec", drafting_state(rows, draft_state([0.02] * 64)))
    assert good.length == 7
    assert bad.length == 0


def test_each_request_has_its_own_length() -> None:
    known = draft_state([0.95, 0.2] * 16)
    drafts = drafts_of("turbospec", drafting_state(rows_without_targets(32), known))
    assert drafts.caps is not None
    assert drafts.caps[0::2].min() >= 5
    assert drafts.caps[1::2].max() <= 1


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(0.02, 0.98), min_size=1, max_size=12),
    st.integers(1, 40),
    st.sampled_from([(1, 7), (3, 16)]),
    st.sampled_from(["rate", "sum"]),
)
def test_a_budget_is_kept_and_goes_to_those_who_are_guessed_best(
    chances: list[float], budget: int, shape: tuple[int, int], value: str
) -> None:
    width, most = shape
    known = draft_state(chances, width=width, most_tokens=most, lengths=(0, 7))
    state = drafting_state(rows_without_targets(len(chances)), known)
    batch = Batch.of(state, LINE, parse_policy("eager").plan(state, LINE), known)
    found = within_budget(own_candidates(batch, value), budget)
    for which in np.flatnonzero(found.is_possible)[1:]:
        caps = found.caps(which)
        assert caps.sum() == found.draft_tokens[which] <= budget
        assert caps.max() <= most
        # Who is guessed better never has less of a chain.
        order = np.argsort(chances, kind="stable")
        if width == 1:
            assert np.all(np.diff(caps[order].astype(int)) >= 0)


def test_a_lookup_that_starts_badly_and_goes_on_well_is_worth_its_length() -> None:
    """Half of the lookups find nothing that is right; what follows a right start is right."""
    rows = rows_without_targets(8)
    known = draft_state([0.5] * 8, later_acceptance=np.full(8, 0.97), cost=NO_DRAFTING)
    even = draft_state([0.5] * 8, cost=NO_DRAFTING)
    looked_up = drafts_of("turbospec", drafting_state(rows, known))
    assert looked_up.length == 7
    assert looked_up.caps is not None
    assert looked_up.caps.min() == 7
    assert drafts_of("turbospec", drafting_state(rows, even)).draft_tokens < 7 * 8


@settings(max_examples=25, deadline=None)
@given(st.floats(0.02, 0.98), st.integers(1, 300), st.sampled_from([1, 3]))
def test_a_row_alone_drafts_what_makes_its_own_tokens_cheapest(
    chance: float, count: int, width: int
) -> None:
    """Among rows that are all alike, the best for each is the best for the step."""
    known = draft_state([chance] * count, width=width, most_tokens=7 if width == 1 else 16)
    state = drafting_state(rows_without_targets(count), known)
    batch = Batch.of(state, LINE, parse_policy("eager").plan(state, LINE), known)
    found = own_candidates(batch, "rate")
    step_s = batch.step_s(found.draft_tokens, found.length)
    assert found.rates(batch, step_s, "rate") == pytest.approx(found.rates(batch, step_s, "sum"))


@pytest.mark.parametrize("cost", [NO_DRAFTING, DraftingCost(token_s=-4e-5)])
def test_the_price_of_a_draft_token_is_its_share_of_the_rest_of_a_row(cost: DraftingCost) -> None:
    """What verifying is found to cost beyond, or less than, what the predictor says counts too."""
    known = draft_state([0.9] * 50, cost=cost)
    state = drafting_state(rows_without_targets(50), known)
    batch = Batch.of(state, LINE, parse_policy("eager").plan(state, LINE), known)
    found = own_candidates(batch, "rate")
    step_s = batch.step_s(found.draft_tokens, found.length)
    for which in np.flatnonzero(found.is_possible)[1:]:
        each_s = (step_s[which] - batch.plain_s) / found.draft_tokens[which]
        price = found.price(batch, int(which), float(step_s[which]))
        assert price == pytest.approx(each_s / (batch.plain_s / 50))


def test_prefill_that_follows_every_step_makes_longer_steps_pay() -> None:
    rows = rows_without_targets(64)
    calm = drafts_of("turbospec", drafting_state(rows, draft_state([0.6] * 64)))
    busy = drafts_of("turbospec", drafting_state(rows, draft_state([0.6] * 64, interrupted=1.0)))
    assert busy.draft_tokens > calm.draft_tokens


def test_where_leaving_drafts_out_costs_more_than_it_saves_nothing_is_left_out() -> None:
    rows = rows_without_targets(16)
    free = draft_state([0.3, 0.9] * 8, takes_budget=True)
    dear = draft_state([0.3, 0.9] * 8, takes_budget=True, cost=DraftingCost(1e-3, partial_s=5e-3))
    shared = drafts_of("turbospec", drafting_state(rows, free))
    assert shared.shares_out
    assert shared.draft_tokens < 16 * shared.length
    whole = drafts_of("turbospec", drafting_state(rows, dear))
    assert whole.length > 0
    assert whole.draft_tokens == 16 * whole.length
    assert (whole.shares_out, whole.price, whole.given) == (False, 0.0, None)


def test_a_budget_that_equals_one_length_for_all_is_spent() -> None:
    known = draft_state([0.9] * 8, lengths=(0, 3))
    drafts = drafts_of("draft_tree:budget=3", drafting_state(rows_without_targets(8), known))
    assert (drafts.length, drafts.draft_tokens) == (3, 3 * 8)


def test_now_and_then_a_few_rows_show_whether_drafts_have_become_worth_it() -> None:
    rows, known = rows_without_targets(64), draft_state([0.02] * 64)
    seen: set[int] = set()
    for turn in range(1, 17):
        state = drafting_state(rows, known, for_step=48 * turn)
        drafts = drafts_of("turbospec", state)
        assert drafts.length == 1
        assert drafts.caps is not None
        assert drafts.caps.sum() == 4
        seen.update(np.flatnonzero(drafts.caps).tolist())
        assert (
            drafts_of("turbospec", drafting_state(rows, known, for_step=48 * turn + 1)).length == 0
        )
    assert seen == set(range(64)), "in turn"


def test_measured_tokens_outrank_expected_ones() -> None:
    rows = rows_without_targets(8)
    hopeful = draft_state([0.9] * 8)
    measured = np.array([1.0, 1.02, 1.02, 1.02, 1.02, 1.02])
    sobered = draft_state([0.9] * 8, measured_tokens=measured)
    assert drafts_of("adaptive_candidates", drafting_state(rows, hopeful)).length == 7
    assert drafts_of("adaptive_candidates", drafting_state(rows, sobered)).length == 0


def test_an_engine_that_shares_a_budget_out_is_given_one() -> None:
    known = draft_state([0.9] * 8, width=3, most_tokens=16, takes_budget=True)
    state = drafting_state(rows_without_targets(8), known)
    told = drafts_of("draft_tree", state)
    assert told.shares_out
    assert told.caps is None
    assert told.draft_tokens > 0
    assert told.price > 0
    assert told.given is not None
    assert told.given.min() > 1
    assert told.most_tokens == told.draft_tokens
    assert not drafts_of("draft_tree:told=caps", state).shares_out


def test_parked_rows_draft_nothing() -> None:
    known = draft_state([0.9] * 4)
    rows = [trunk(1, request_id=1), *(extra(1, request_id=2 + n) for n in range(3))]
    plan = parse_policy("off+turbospec").plan(drafting_state(rows, known), LINE)
    assert plan.park.sum() == 3
    assert plan.drafts is not None
    assert plan.drafts.caps is not None
    assert not plan.drafts.caps[plan.park].any()


def test_two_policies_decide_about_two_things() -> None:
    policy = parse_policy("taper_plus:floor=0.1 + turbospec:per_request=false")
    assert [part.kind.name for part in policy.parts] == ["taper_plus", "turbospec"]
    assert policy.label == "taper_plus:floor=0.1 + turbospec:per_request=false"
    alone = parse_policy("fixed_draft:3")
    assert [part.kind.name for part in alone.parts] == ["eager", "fixed_draft"]
    assert [part.kind.name for part in parse_policy("taper").parts] == ["taper"]


@pytest.mark.parametrize("text", ["taper+off", "turbospec+fixed_draft:3", "taper+turbospec+eager"])
def test_each_thing_is_decided_once(text: str) -> None:
    with pytest.raises(UnknownPolicy, match="both decide about"):
        parse_policy(text)


@pytest.mark.parametrize(
    "text", ["turbospec+", "turbospec+nothing", "fixed_draft", "draft_tree:x=1"]
)
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(UnknownPolicy):
        parse_policy(text)


def test_the_order_in_which_they_are_written_does_not_matter() -> None:
    known = draft_state([0.9] * 4)
    rows = [trunk(1, request_id=1), *(extra(1, request_id=2 + n) for n in range(3))]
    state = drafting_state(rows, known)
    first = parse_policy("off+turbospec").plan(state, LINE)
    second = parse_policy("turbospec+off").plan(state, LINE)
    assert first.drafts is not None
    assert second.drafts is not None
    assert np.array_equal(first.park, second.park)
    assert np.array_equal(first.drafts.caps, second.drafts.caps)


@pytest.mark.parametrize("kind", DRAFT_POLICIES, ids=lambda kind: kind.name)
def test_an_engine_without_drafts_is_left_alone(kind: object) -> None:
    policy = parse_policy({"fixed_draft": "fixed_draft:3"}.get(kind.name, kind.name))
    assert kind.knob is Knob.DRAFTS
    assert policy.plan(state_of([serial(), serial()]), LINE).drafts is None


@pytest.mark.parametrize("policy", ["turbospec", "adaptive_candidates", "draft_tree"])
def test_until_costs_are_known_the_engine_drafts_as_it_likes(policy: str) -> None:
    unfitted = KnownPredictor(0.01, 0.0, 0.0)
    unfitted.fitted = False
    state = drafting_state(rows_without_targets(4), draft_state([0.9] * 4))
    assert drafts_of(policy, state, unfitted).length == -1


@pytest.mark.parametrize(
    "wrong",
    [
        DraftPlan(length=4),
        DraftPlan(length=-2),
        DraftPlan(length=3, caps=np.zeros(3, dtype=np.uint8)),
        DraftPlan(length=3, caps=np.zeros(2)),
    ],
    ids=range(4),
)
def test_nonsense_of_a_policy_is_no_plan(wrong: DraftPlan) -> None:
    policy = parse_policy("turbospec")
    branches, drafts = policy.parts
    kind = msgspec.structs.replace(drafts.kind, decide=lambda *_: wrong)
    parts = (branches, msgspec.structs.replace(drafts, kind=kind))
    broken = msgspec.structs.replace(policy, parts=parts)
    state = drafting_state(rows_without_targets(2), draft_state([0.5] * 2))
    with pytest.raises(PolicyFailed):
        broken.plan(state, LINE)


def test_survival_falls_with_depth() -> None:
    known: DraftState = draft_state([0.9, 0.3], by_position=np.array([1.0, 0.9, 2.0, 1, 1, 1, 1]))
    survival = known.survival(7)
    assert np.all(np.diff(survival, axis=1) <= 0)
    assert survival[1, 1] == pytest.approx(0.3 * 0.27)
