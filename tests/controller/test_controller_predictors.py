"""Step-latency predictors: what they recover, and what they may never do."""

from __future__ import annotations

import numpy as np
import pytest
from controller_builders import fitted_line
from hypothesis import given
from hypothesis import strategies as st

from controller_service.predictors.base import DraftingCost, StepSample, marginal_s
from controller_service.predictors.linear import OnlineLinearPredictor, PublishedPredictor
from controller_service.predictors.registry import make_predictor, predictor_names
from controller_service.predictors.samples import RegimeBuffer
from controller_service.predictors.table import monotone

A, B, C = 0.00699, 39.4e-6, 0.0143e-6


def truth(rows, context):
    return A + B * rows + C * context


def varied_steps(count, seed=0, noise=0.0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        rows = int(rng.integers(1, 257))
        context = rows * int(rng.integers(64, 4096))
        yield StepSample(rows, context, 0, truth(rows, context) * (1 + noise * rng.normal()))


def learn(predictor, samples, now_s=0.0):
    for sample in samples:
        predictor.observe(sample)
    if predictor.refit_due(now_s):
        predictor.refit(now_s)
    return predictor


@pytest.mark.parametrize("name", ["published", "linear"])
def test_recovers_coefficients(name):
    predictor = learn(make_predictor(name), varied_steps(200, noise=0.01))
    got = predictor.coefficients()
    assert got["a_s"] == pytest.approx(A, rel=0.1)
    assert got["b_s_per_row"] == pytest.approx(B, rel=0.15)
    assert got["c_s_per_token"] == pytest.approx(C, rel=0.05)


@pytest.mark.parametrize("name", predictor_names())
def test_is_not_fitted_before_32_samples(name):
    predictor = learn(make_predictor(name), varied_steps(31))
    assert not predictor.fitted
    assert predictor.coefficients().get("a_s") is None
    assert learn(predictor, varied_steps(1)).fitted


@pytest.mark.parametrize("name", predictor_names())
def test_predicts_scalars_and_arrays_alike(name):
    predictor = learn(make_predictor(name), varied_steps(300))
    rows, context = np.array([1.0, 64.0, 700.0]), np.array([100.0, 64e3, 3e6])
    one_by_one = [predictor.predict(float(n), float(c)) for n, c in zip(rows, context, strict=True)]
    np.testing.assert_allclose(predictor.predict(rows, context), one_by_one)


def test_published_learns_from_the_last_200_steps_every_600_s():
    predictor = learn(PublishedPredictor(), varied_steps(40), now_s=0.0)
    before = predictor.predict(100.0, 1e5)
    slower = [StepSample(s.rows, s.context_tokens, 0, 2 * s.latency_s) for s in varied_steps(200)]
    learn(predictor, slower, now_s=599.0)
    assert predictor.predict(100.0, 1e5) == before
    learn(predictor, [], now_s=600.0)
    assert predictor.predict(100.0, 1e5) == pytest.approx(2 * before, rel=0.02)


def test_linear_refits_every_64_steps_but_not_more_often_than_four_times_a_second():
    predictor = learn(OnlineLinearPredictor(), varied_steps(32), now_s=0.0)
    assert predictor.version == 1
    assert learn(predictor, varied_steps(63), now_s=1.0).version == 1
    assert learn(predictor, varied_steps(1), now_s=1.0).version == 2
    assert learn(predictor, varied_steps(64), now_s=1.2).version == 2
    assert learn(predictor, [], now_s=1.3).version == 3


@pytest.mark.parametrize("rows", [1, 8, 64])
def test_linear_does_not_take_rows_for_free_or_explode_when_all_batches_look_alike(rows):
    rng = np.random.default_rng(0)
    same = [
        StepSample(rows, rows * 1000, 0, truth(rows, rows * 1000) * (1 + 0.02 * rng.normal()))
        for _ in range(64)
    ]
    predictor = learn(OnlineLinearPredictor(), same)
    here = predictor.predict(float(rows), rows * 1000.0)
    assert here == pytest.approx(truth(rows, rows * 1000), rel=0.02)
    assert predictor.coefficients()["b_s_per_row"] > 0
    double = predictor.predict(2.0 * rows, rows * 2000.0)
    assert here < double < 2 * here


def test_linear_ignores_pauses_of_the_machine():
    samples = list(varied_steps(400))
    paused = [
        StepSample(s.rows, s.context_tokens, 0, 1.0) if i % 20 == 7 else s
        for i, s in enumerate(samples)
    ]
    predictor = learn(OnlineLinearPredictor(), paused)
    assert predictor.predict(64.0, 64e3) == pytest.approx(truth(64, 64e3), rel=0.02)


def test_linear_follows_a_lasting_change_of_speed():
    predictor = learn(OnlineLinearPredictor(), varied_steps(300))
    slower = [StepSample(s.rows, s.context_tokens, 0, 8 * s.latency_s) for s in varied_steps(9000)]
    learn(predictor, slower, now_s=1.0)
    assert predictor.predict(64.0, 64e3) == pytest.approx(8 * truth(64, 64e3), rel=0.05)


def test_prefill_does_not_teach_decode_but_has_its_own_cost():
    predictor = OnlineLinearPredictor()
    mixed = [StepSample(8, 8000, 512, truth(8, 8000) + 512 * 1e-5) for _ in range(40)]
    learn(predictor, [*varied_steps(100), *mixed])
    assert predictor.predict(8.0, 8000.0) == pytest.approx(truth(8, 8000), rel=0.02)
    assert predictor.predict(8.0, 8000.0, 100) == pytest.approx(truth(8, 8000) + 1e-3, rel=0.05)


def test_linear_survives_nonsense_samples():
    nonsense = [
        StepSample(0, 0, 0, 0.01),
        StepSample(4, 100, 0, 0.0),
        StepSample(4, 100, 0, float("nan")),
        StepSample((1 << 31) - 1, (1 << 31) - 1, 0, 1e7),
        StepSample(1, 0, (1 << 31) - 1, 1e7),
    ]
    predictor = learn(OnlineLinearPredictor(), [*nonsense, *varied_steps(200)])
    assert predictor.predict(64.0, 64e3) == pytest.approx(truth(64, 64e3), rel=0.1)


samples = st.builds(
    StepSample,
    st.integers(0, (1 << 31) - 1),
    st.integers(0, (1 << 31) - 1),
    st.sampled_from([0, 0, 0, 1, (1 << 31) - 1]),
    st.one_of(st.floats(0, 1e7), st.floats(0, 0.1)),
)


@pytest.mark.parametrize("name", ["published", "linear"])
@given(samples=st.lists(samples, min_size=40, max_size=120))
def test_no_samples_break_a_fit(name, samples):
    predictor = learn(make_predictor(name), samples)
    here, there = predictor.predict(8.0, 1e4, 5), predictor.predict(9.0, 2e4, 6)
    assert 0 <= here <= there < float("inf")


def test_rare_regimes_are_remembered():
    buffer = RegimeBuffer(regimes=4, depth=8)
    for _ in range(5):
        buffer.add(StepSample(1, 100, 0, 0.5))
    for _ in range(1000):
        buffer.add(StepSample(64, 64000, 0, 0.9))
    rows, _, _, latency, _ = buffer.design(outlier_factor=5.0)
    assert len(buffer) == len(rows) == 13
    assert (latency[rows == 1] == 0.5).sum() == 5


@given(st.lists(st.tuples(st.integers(1, 1 << 20), st.integers(0, 1 << 20)), max_size=200))
def test_the_memory_stays_bounded_and_counts_right(shapes):
    buffer = RegimeBuffer(regimes=6, depth=4)
    for rows, context in shapes:
        buffer.add(StepSample(rows, context, 0, 1.0))
    assert len(buffer) == len(buffer.design(5.0)[0]) <= 24


@given(st.integers(1, 400), st.integers(0, 1 << 20), st.lists(st.integers(0, 8192), min_size=1))
def test_no_row_has_a_negative_cost(trained, rows, context, candidates):
    for predictor in trained:
        cost = marginal_s(predictor, rows, context, np.array(candidates, dtype=np.float64))
        assert (cost >= -1e-12).all()


@pytest.fixture(scope="module")
def trained():
    return [fitted_line(), learn(make_predictor("corrected-linear"), varied_steps(300))]


def test_a_draft_token_costs_as_much_as_a_row_without_context():
    predictor = fitted_line()
    with_drafts = predictor.predict(8.0, 8000.0, 0.0, 24.0)
    assert with_drafts == pytest.approx(predictor.predict(32.0, 8000.0))
    drafted = [
        StepSample(s.rows, s.context_tokens, 0, truth(4 * s.rows, s.context_tokens), 3 * s.rows)
        for s in varied_steps(300)
    ]
    learnt = learn(OnlineLinearPredictor(), drafted)
    assert learnt.predict(8.0, 8000.0, 0.0, 24.0) == pytest.approx(truth(32, 8000), rel=0.01)


def test_steps_are_told_without_what_drafting_is_known_to_take_by_now():
    """What was thought when they ran may have been a guess."""
    buffer = RegimeBuffer()
    wrong, right = DraftingCost(), DraftingCost(1e-3, 1e-5, 2e-3, token_s=-1e-5)
    whole_s = 0.02 + right.seconds(3, 8, 24)
    buffer.add(StepSample(8, 800, 0, whole_s - wrong.seconds(3, 8, 24), 24, 3, wrong))
    buffer.add(StepSample(8, 800, 0, whole_s - right.seconds(3, 8, 24), 24, 3, right))
    assert buffer.design(5.0)[3] == pytest.approx([0.02, 0.02])
    assert buffer.columns()[4] == pytest.approx([0.02, 0.02])


@pytest.mark.parametrize("name", ["linear", "published", "constant"])
def test_nine_steps_in_ten_stay_below_the_p90(name):
    steps = list(varied_steps(3000, seed=4, noise=0.05))
    if name == "constant":
        shape = make_predictor(name)
        learn(shape, steps)
        steps = [
            StepSample(s.rows, 0, 0, 1e-2 * shape.predict(float(s.rows), 0.0) * factor)
            for s, factor in zip(
                steps, np.random.default_rng(1).normal(1.0, 0.05, len(steps)), strict=True
            )
        ]
    predictor = learn(make_predictor(name), steps[:2000])
    covered = [
        s.latency_s <= predictor.predict_p90(float(s.rows), float(s.context_tokens))
        for s in steps[2000:]
    ]
    assert np.mean(covered) == pytest.approx(0.9, abs=0.05)


def test_after_a_change_the_buffer_holds_one_machine():
    buffer = RegimeBuffer(depth=32)
    for step in range(20):
        buffer.add(StepSample(4, 400, 0, 0.01 + 1e-6 * step))
        buffer.add(StepSample(64, 6400, 0, 0.02))
    for _ in range(6):
        buffer.add(StepSample(4, 400, 0, 0.03))
    buffer.carry_over(6, 3.0)
    rows, _, _, latency, weight = buffer.design(outlier_factor=5.0)
    assert len(buffer) == len(rows) == 26
    np.testing.assert_allclose(latency[rows == 4], 0.03)
    np.testing.assert_allclose(latency[rows == 64], 0.06)
    assert weight[rows == 64].max() < 0.3 * weight[rows == 4].min()


def test_a_change_of_shape_forgets_what_was_before():
    buffer = RegimeBuffer(depth=32)
    for rows in (4, 64, 128):
        for _ in range(10):
            buffer.add(StepSample(rows, 100 * rows, 0, 0.01))
    for _ in range(5):
        buffer.add(StepSample(4, 400, 0, 0.01))
        buffer.add(StepSample(64, 6400, 0, 0.03))
    buffer.carry_over(10, 2.0)
    rows, _, _, latency, _ = buffer.design(outlier_factor=5.0)
    assert sorted(zip(rows, latency, strict=True)) == [(4, 0.01)] * 5 + [(64, 0.03)] * 5


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 9), st.floats(1e-3, 1.0)), max_size=200),
    st.integers(0, 50),
    st.floats(0.1, 10.0),
)
def test_a_buffer_stays_sound_after_changes(shapes, newer, factor):
    buffer = RegimeBuffer(regimes=5, depth=4)
    for count, (rows, context, latency_s) in enumerate(shapes):
        buffer.add(StepSample(rows, context, 0, latency_s))
        if count % 40 == 39:
            buffer.carry_over(newer, factor)
    assert len(buffer) == buffer.columns().shape[1] <= 20
    assert len(buffer.design(1e9)[0]) == len(buffer)


def test_monotone_leaves_what_is_monotone():
    values = np.add.outer(np.arange(5.0), np.arange(7.0))
    np.testing.assert_allclose(monotone(values, np.zeros_like(values)), values)


def test_an_unknown_predictor_names_the_choices():
    with pytest.raises(
        ValueError, match="published, linear, boosted, extra_trees, measured, constant"
    ):
        make_predictor("oracle")


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_results_taken_in_late_do_not_bend_the_line(share: float) -> None:
    """A stalled host lengthens one step and all but swallows the next: pairs of 1.8 T and 0.2 T."""
    a, b, c = 0.0166, 6.6e-5, 5.8e-8
    predictor = make_predictor("linear")
    rng = np.random.default_rng(3)
    borrowed_s = 0.0
    for step in range(1500):
        rows = int(rng.integers(20, 60)) if step < 700 else int(rng.integers(100, 350))
        context = rows * int(rng.integers(200, 600))
        truth = a + b * rows + c * context
        if borrowed_s:
            latency_s, borrowed_s = truth - borrowed_s, 0.0
        else:
            borrowed_s = 0.8 * truth if rng.random() < share else 0.0
            latency_s = truth + borrowed_s
        predictor.observe(StepSample(rows, context, 0, max(latency_s, 1e-3)))
        if predictor.refit_due(0.3 * step):
            predictor.refit(0.3 * step)
    for rows, context in ((40, 16_000), (200, 80_000), (340, 130_000)):
        truth = a + b * rows + c * context
        assert predictor.predict(float(rows), float(context)) == pytest.approx(truth, rel=0.06)
