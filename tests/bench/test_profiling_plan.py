"""What a profile measures: within the engine's room, coarse to fine, the same every time."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from governor_bench.profiling.costs import Costs
from governor_bench.profiling.plan import DRAFTS_AT_ONCE, context_levels, make_plan, row_levels
from governor_bench.profiling.point import (
    DRAFT_STEPS,
    KV_SHARE,
    LEAST_CONTEXT_TOKENS,
    Limits,
    Point,
    fits,
    kv_need,
)
from governor_bench.profiling.prompts import Prompts
from governor_bench.profiling.run import LARGEST_SHARE
from governor_bench.profiling.steps import (
    DECODE,
    FIRST_DROPPED,
    LAST_DROPPED,
    Step,
    joining_steps,
    levels_measured,
    own_steps,
)
from hypothesis import given, settings
from hypothesis import strategies as st

PREFILL = 1


@st.composite
def limits(draw: st.DrawFn) -> Limits:
    graphs = draw(st.sets(st.integers(1, 600), max_size=12))
    return Limits(
        max_rows=draw(st.integers(1, 700)),
        max_context_tokens=draw(st.integers(200, 200_000)),
        kv_tokens=draw(st.integers(400, 1_000_000)),
        page_tokens=draw(st.sampled_from([1, 16, 64])),
        chunk_tokens=draw(st.integers(32, 20_000)),
        graph_rows=tuple(sorted(graphs)),
        draft_lengths=draw(st.sampled_from([(), (0,), (0, 3), tuple(range(11))])),
    )


@settings(max_examples=60, deadline=None)
@given(limits())
def test_every_point_fits(bounds: Limits) -> None:
    for point in make_plan(bounds):
        assert 0 <= point.rows[-1] <= point.rows[0] <= bounds.max_rows
        taken = 0
        for row in range(point.rows[0]):
            tokens = point.context_tokens + point.tokens_of_row(row)
            assert tokens <= bounds.max_context_tokens
            taken += tokens
        assert point.prefill_tokens < bounds.max_context_tokens
        assert taken + point.prefill_tokens <= kv_need(point, bounds) <= KV_SHARE * bounds.kv_tokens


@settings(max_examples=30, deadline=None)
@given(limits())
def test_a_plan_is_the_same_every_time_and_names_each_point_once(bounds: Limits) -> None:
    plan = make_plan(bounds)
    assert plan == make_plan(bounds)
    assert len({point.name for point in plan}) == len(plan)


@settings(max_examples=30, deadline=None)
@given(limits())
def test_row_counts_fall_and_rows_leave_in_order(bounds: Limits) -> None:
    for point in make_plan(bounds):
        assert all(later < earlier for earlier, later in zip(point.rows, point.rows[1:]))  # noqa: B905
        lengths = [point.tokens_of_row(row) for row in range(point.rows[0])]
        assert lengths == sorted(lengths, reverse=True)
        if point.kind == "decode":
            ends = [sum(length > step for length in lengths) for step in range(lengths[0])]
            assert {rows for rows in ends if rows} == set(point.rows)


GPU = Limits(
    max_rows=512,
    max_context_tokens=131072,
    kv_tokens=223464,
    graph_rows=(1, 2, 4, 8, 12, *range(16, 257, 8), *range(272, 513, 16)),
)


def test_the_corners_come_first_and_the_fill_last() -> None:
    plan = make_plan(GPU)
    first = plan[:8]
    contexts = [point.context_tokens for point in first if point.kind == "decode"]
    assert first[0] == Point("decode", LEAST_CONTEXT_TOKENS, (1,))
    assert Point("decode", LEAST_CONTEXT_TOKENS, (512,)) in first
    assert max(contexts) == context_levels(GPU)[-1] > 100_000
    assert any(point.prefill_tokens == GPU.chunk_tokens for point in first)
    levels = set(context_levels(GPU))
    off_level = [point.kind == "decode" and point.context_tokens not in levels for point in plan]
    assert off_level.index(True) > len(plan) // 20
    fill = off_level[off_level.index(True) :]
    assert sum(fill) > 0.95 * len(fill)


def test_each_graph_size_and_one_row_more_are_measured() -> None:
    assert {16, 17, 24, 25, 512} <= set(row_levels(GPU))
    measured = {rows for point in make_plan(GPU) if point.kind == "decode" for rows in point.rows}
    assert set(row_levels(GPU)) <= measured


def test_prefill_is_measured_alone_and_beside_rows() -> None:
    found = [point for point in make_plan(GPU) if point.kind == "prefill"]
    assert {64, 256, 1024, 4096, 8192} == {p.prefill_tokens for p in found if not p.rows[0]}
    assert any(point.rows[0] for point in found)


SPECULATES = msgspec.structs.replace(GPU, draft_lengths=tuple(range(11)))


def test_batches_of_a_few_sizes_go_through_every_draft_length() -> None:
    plan = make_plan(SPECULATES)
    drafts = [point for point in plan if point.kind == "draft"]
    for rows, context in {(point.rows, point.context_tokens) for point in drafts}:
        batch = [p for p in drafts if (p.rows, p.context_tokens) == (rows, context)]
        assert {length for point in batch for length in point.draft_lengths} == set(range(11))
    assert {1, 128} <= {point.rows[0] for point in drafts if point.context_tokens == 64}
    assert len({point.context_tokens for point in drafts}) == 2
    for point in drafts:
        assert point.visits[0] == point.visits[-1] == 0
        assert len(point.draft_lengths) <= 1 + DRAFTS_AT_ONCE
        # Whatever is accepted, rows last for the steps of every length.
        least = DRAFT_STEPS * sum(1 + length for length in point.visits)
        assert point.tokens_of_row(0, lead_steps=0) > least


def test_drafts_come_early_and_leave_the_other_points_as_they_are() -> None:
    plan = make_plan(SPECULATES)
    places = [index for index, point in enumerate(plan) if point.kind == "draft"]
    assert places[0] < 8
    assert places[-1] < len(plan) // 5
    roomy = msgspec.structs.replace(SPECULATES, kv_tokens=1 << 30)
    others = [point for point in make_plan(roomy) if point.kind != "draft"]
    for without in ((), (0,)):
        assert make_plan(msgspec.structs.replace(roomy, draft_lengths=without)) == others


def test_others_take_room() -> None:
    point = Point("decode", 1000, (4,))
    bounds = Limits(max_rows=4, max_context_tokens=4096, kv_tokens=6000)
    assert fits(point, bounds)
    assert not fits(point, bounds, others_tokens=2000)


@pytest.mark.parametrize(
    ("field", "values"),
    [("max_rows", (0, 4096, 9000)), ("kv_tokens", (8, 4096, 80)), ("max_context", (8, 70, 9000))],
)
def test_limits_without_room_are_refused(field: str, values: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=field):
        Limits(max_rows=values[0], max_context_tokens=values[1], kv_tokens=values[2])


def test_prompts_of_a_row_begin_alike_and_fresh_ones_never() -> None:
    prompts = Prompts(2000, run=5)
    for row in (0, 3, 511):
        long = prompts.of_row(row, 3000)
        assert len(long) == 3000
        assert prompts.of_row(row, 777) == long[:777]
    assert prompts.of_row(0, 50) != prompts.of_row(1, 50)
    assert prompts.fresh(50) != prompts.fresh(50) != Prompts(2000, run=6).fresh(50)
    assert all(3 <= token < 2000 for token in long)


# -- which steps count -------------------------------------------------------------------------


def decode(rows: int, context: int, latency_s: float = 0.02, draft: int = 0) -> Step:
    return Step(DECODE, rows, rows * context, 0, draft * rows, latency_s, draft)


def test_only_steps_of_the_points_own_rows_count() -> None:
    point = Point("decode", 100, (4, 2))
    good = [decode(4, 110 + i) for i in range(8)] + [decode(2, 120 + i) for i in range(9)]
    joining = [decode(1, 101), decode(3, 102)]
    others = [decode(5, 105) for _ in range(6)] + [decode(4, 9000) for _ in range(6)]
    prefill = [Step(PREFILL, 4, 400, 400, 0, 0.1)]
    own = own_steps(point, [*prefill, *joining, *good, *others])
    assert {step.rows for step in own} == {4, 2}
    assert len(own) == len(good) - 2 * (FIRST_DROPPED + LAST_DROPPED)
    assert all(step in good for step in own)
    assert levels_measured(point, own) == [4, 2]
    assert joining_steps(point, [*prefill, *joining, *good]) == 2


def test_too_short_a_stretch_measures_nothing() -> None:
    point = Point("decode", 100, (4, 2))
    own = own_steps(point, [decode(4, 110) for _ in range(FIRST_DROPPED + LAST_DROPPED + 2)])
    assert levels_measured(point, own) == []


def test_a_prefill_is_told_by_its_tokens() -> None:
    point = Point("prefill", 64, (8,), 1000)
    alone, beside = Step(1, 1, 1000, 1000, 0, 0.2), Step(2, 9, 1600, 1008, 0, 0.2)
    chance = Step(1, 1, 1000, 999, 0, 0.2)
    other, rows = Step(1, 1, 990, 990, 0, 0.2), Step(1, 8, 512, 512, 0, 0.1)
    steps = [alone, beside, chance, other, rows, decode(8, 70)]
    assert own_steps(point, steps) == [alone, beside, chance]
    assert levels_measured(point, [alone]) == [1000]


def test_drafts_are_matched() -> None:
    point = Point("draft", 100, (2,), 0, (0, 3))
    plain, drafted, other = ([decode(2, 105, draft=k) for _ in range(9)] for k in (0, 3, 1))
    own = own_steps(point, [*plain, *drafted, *other, *plain])
    assert Counter(step.draft_length for step in own) == {0: 12, 3: 6}
    assert levels_measured(point, own) == [0, 3]
    assert levels_measured(point, own_steps(point, drafted)) == [3]
    assert not own_steps(point, [decode(3, 105, draft=3) for _ in range(9)])
    decoding = Point("decode", 100, (2,))
    assert not own_steps(decoding, drafted)
    assert own_steps(decoding, plain) == own_steps(decoding, [*drafted, *plain])


# -- what a point will take --------------------------------------------------------------------


def truth(rows: int, context: int) -> float:
    return 0.015 + 5e-5 * rows + 6e-8 * context


def steps_like(point: Point, *, cached: bool) -> list[Step]:
    whole = point.rows[0] * point.context_tokens
    tokens = point.rows[0] if cached else whole
    steps = [Step(PREFILL, point.rows[0], whole, tokens, 0, 0.015 + 1e-4 * tokens)]
    for rows in point.rows:
        contexts = [rows * (point.context_tokens + step) for step in range(12)]
        steps += [Step(DECODE, rows, c, 0, 0, truth(rows, c)) for c in contexts]
    return steps


def test_estimates_follow_what_was_measured() -> None:
    costs = Costs(GPU.kv_tokens)
    for rows, context in ((1, 64), (256, 64), (4, 8192), (16, 4096)):
        point = Point("decode", context, (rows,))
        costs.learn(point, steps_like(point, cached=False), 0, 5.0)
        costs.recall(point, steps_like(point, cached=False))
    assert costs.step_s(64, 64 * 2048) == pytest.approx(truth(64, 64 * 2048), rel=0.02)
    new = Point("decode", 2000, (60,))
    assert costs.seconds(new) > 1e-4 * 40 * 2000
    costs.learn(new, steps_like(new, cached=False), 0, 30.0)
    # The same prompts again are cached, and a longer context costs only what it adds.
    again, longer = Point("decode", 2000, (60, 50)), Point("decode", 2100, (60,))
    assert costs.prefixes.missing(again) == 60
    assert costs.prefixes.missing(longer) >= 44 * 100


def test_estimates_of_drafts_follow_what_drafts_took() -> None:
    costs = Costs(GPU.kv_tokens)
    point = Point("draft", 64, (8,), 0, (0, 5))
    before_s = costs.seconds(point)
    steps = [decode(8, 70 + i, 0.02 * (1 + k), k) for k in (0, 5) for i in range(9)]
    costs.recall(point, steps)
    assert costs.step_s(8, 560) == pytest.approx(0.02, rel=0.05)
    slow_s = costs.seconds(point)
    costs = Costs(GPU.kv_tokens)
    costs.recall(point, [msgspec.structs.replace(step, latency_s=0.02) for step in steps])
    assert costs.seconds(point) < 0.6 * slow_s
    assert before_s > 0


def test_three_minutes_have_drafts_of_a_few_sizes() -> None:
    """By the estimates that a sweep goes by, on an engine like a GPU."""
    costs = Costs(GPU.kv_tokens)
    busy_s = 90.0  # of three minutes, half
    left_s, drafted, decoded = busy_s, set(), set()
    for point in make_plan(msgspec.structs.replace(SPECULATES, draft_lengths=(0, 1, 2, 3, 5))):
        seconds = costs.seconds(point)
        if seconds > min(left_s, LARGEST_SHARE * busy_s):
            continue
        left_s -= seconds
        if point.kind == "draft":
            drafted.add(point.rows[0])
            steps = [
                decode(point.rows[0], 70 + i, truth(point.rows[0], 5000) * (1 + 0.1 * k), k)
                for k in point.draft_lengths
                for i in range(9)
            ]
        else:
            decoded |= set(point.rows)
            steps = steps_like(point, cached=False) if point.kind == "decode" else []
        costs.learn(point, steps, 0, sum(step.latency_s for step in steps))
        costs.recall(point, steps)
    assert len(drafted) >= 4, drafted
    assert len(decoded) >= 10, decoded


def test_an_engine_without_a_prefix_cache_is_noticed() -> None:
    costs = Costs(GPU.kv_tokens)
    point = Point("decode", 1000, (10,))
    costs.learn(point, steps_like(point, cached=False), 0, 5.0)
    costs.learn(point, steps_like(point, cached=True), 0, 5.0)
    assert costs.prefixes.missing(point) == 10
    costs.learn(point, steps_like(point, cached=False), 0, 5.0)
    assert costs.prefixes.missing(point) == 10_000


def test_the_prefixes_used_longest_ago_are_given_up() -> None:
    costs = Costs(kv_tokens=10_000)
    for context, rows, cached in ((1000, 4, False), (100, 4, True), (8800, 1, False)):
        point = Point("decode", context, (rows,))
        costs.learn(point, steps_like(point, cached=cached), 0, 5.0)
    # What the first point used beyond the second had to go, the newest has to prefill nothing.
    assert costs.prefixes.missing(Point("decode", 8800, (1,))) == 1
    assert costs.prefixes.missing(Point("decode", 100, (4,))) == 4
    assert costs.prefixes.missing(Point("decode", 1000, (4,))) > 2 * 900


@settings(max_examples=60, deadline=None)
@given(limits(), st.integers(0, 400))
def test_estimates_are_positive_and_finite(bounds: Limits, which: int) -> None:
    plan = make_plan(bounds)
    point = plan[which % len(plan)]
    costs = Costs(bounds.kv_tokens)
    assert 0 < costs.seconds(point) < 1e7
    costs.learn(point, [], 0, 0.0)
    assert 0 < costs.seconds(point) < 1e7
