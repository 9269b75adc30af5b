"""Every family: what it predicts, what it promises, and that it survives being stored."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from learning_samples import GRAPHS, bent, roofline, steps, straight, with_drafts, with_prefill

from controller_service.learning.evaluate import evaluate, externality_error
from controller_service.learning.families import NotEnough, family, family_names
from controller_service.learning.samples import Samples
from controller_service.predictors.base import KnowsRowCost

QUICK = settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
NEVER_LESS = -1e-12


@pytest.fixture(scope="module")
def fitted():
    """Each family, fitted once to the bent engine."""
    train = steps(bent, 3000, seed=1)
    return {name: family(name).fit(train, GRAPHS) for name in family_names()}


@pytest.mark.parametrize("name", family_names())
def test_fits_a_straight_engine(name):
    model = family(name).fit(steps(straight, 1500, seed=1), ())
    found = evaluate(model, steps(straight, 1500, seed=2, noise=0.0))
    assert found.step_mape < 0.006


@pytest.mark.parametrize("name", [name for name in family_names() if name != "linear"])
def test_sees_what_a_line_cannot(fitted, name):
    held_out = steps(bent, 2000, seed=2, noise=0.0)
    error = evaluate(fitted[name], held_out).step_mape
    assert error < evaluate(fitted["linear"], held_out).step_mape / 2
    batches = (held_out.rows, held_out.context_tokens)
    costs = externality_error(fitted[name], bent, *batches)
    assert costs.relative < externality_error(fitted["linear"], bent, *batches).relative / 1.5


def test_boosted_halves_the_externality_error_of_the_line(fitted):
    held_out = steps(bent, 2000, seed=3, noise=0.0)
    batches = (held_out.rows, held_out.context_tokens)
    boosted = externality_error(fitted["boosted"], bent, *batches).relative
    assert boosted < externality_error(fitted["linear"], bent, *batches).relative / 2


@pytest.mark.parametrize("name", family_names())
def test_nine_steps_in_ten_stay_below_the_percentile(fitted, name):
    covered = evaluate(fitted[name], steps(bent, 4000, seed=4)).step_p90_coverage
    assert 0.86 <= covered <= 0.94


@pytest.mark.parametrize("name", ["boosted", "extra_trees", "measured"])
def test_bound_by_the_slower_of_two(name):
    """Compute grows with rows, memory traffic with context, and a step takes the longer of both:
    each slope vanishes where the other rules, which no sum of terms can show."""
    train = steps(roofline, 2000, seed=1)
    held_out = steps(roofline, 1000, seed=2, noise=0.0)
    error = evaluate(family(name).fit(train, ()), held_out).step_mape
    assert error < 0.01
    assert error < evaluate(family("linear").fit(train, ()), held_out).step_mape / 2


def test_the_percentile_follows_noise_that_differs():
    """Large batches are noisier: one ratio for all would cover too many small ones,
    too few large ones."""
    small, large = steps(straight, 1500, 1, 0.01), steps(straight, 1500, 2, 0.08)
    mixed = Samples.join([small.take(small.rows <= 16), large.take(large.rows > 16)])
    model = family("boosted").fit(mixed, ())
    quiet, noisy = steps(straight, 1500, 3, 0.01), steps(straight, 1500, 4, 0.08)
    for held_out in (quiet.take(quiet.rows <= 16), noisy.take(noisy.rows > 16)):
        assert 0.84 <= evaluate(model, held_out).step_p90_coverage <= 0.96


@pytest.mark.parametrize("name", family_names())
def test_pauses_of_the_machine_are_not_learnt(name):
    """One step in fifty takes five times as long: the mean stays where most steps are, and the
    percentile still covers nine in ten."""
    train = steps(straight, 3000, seed=1)
    train.latency_s[np.random.default_rng(3).random(3000) < 0.02] *= 5
    model = family(name).fit(train, ())
    assert evaluate(model, steps(straight, 1000, seed=2, noise=0.0)).step_mape < 0.01
    assert 0.86 <= evaluate(model, train).step_p90_coverage <= 0.94


def test_a_jump_is_not_smeared(fitted):
    """64 rows fill a graph and a tile, 65 start another: nothing may lie in between."""
    rows, context = np.array([63.0, 64.0, 65.0]), np.full(3, 20_000.0)
    before, at, after = fitted["boosted"].predict(rows, context)
    assert at - before < 2e-4
    assert after - at > 1.5e-3


@pytest.mark.parametrize("name", family_names())
def test_is_the_same_after_storing(fitted, name):
    model = fitted[name]
    again = family(name).load(dict(model.files()))
    some = steps(bent, 300, seed=5)
    shape = (some.rows, some.context_tokens, some.rows * 3, some.rows)
    assert np.array_equal(model.predict(*shape), again.predict(*shape))
    assert np.array_equal(model.predict_p90(*shape), again.predict_p90(*shape))
    assert again.family == name
    assert dict(again.files()) == dict(model.files())
    assert again.coefficients() == pytest.approx(model.coefficients())


@pytest.mark.parametrize("name", family_names())
def test_learns_what_prefill_and_drafts_cost(name):
    decode = steps(straight, 600, seed=6)
    train = Samples.join(
        [
            decode,
            with_prefill(steps(straight, 300, seed=7), 1e-4, seed=8),
            with_drafts(steps(straight, 300, seed=9), 7e-5, seed=10),
        ]
    )
    model = family(name).fit(train, ())
    plain = model.predict(8.0, 8000.0)
    assert model.predict(8.0, 8000.0, 1024.0) - plain == pytest.approx(0.1024, rel=0.1)
    assert model.predict(8.0, 8000.0, 0.0, 24.0) - plain == pytest.approx(24 * 7e-5, rel=0.3)


@pytest.mark.parametrize("name", family_names())
def test_tokens_never_measured_are_not_free(fitted, name):
    model = fitted[name]
    assert model.predict(8.0, 8000.0, 512.0) > model.predict(8.0, 8000.0)
    assert model.predict(8.0, 8000.0, 0.0, 16.0) > model.predict(8.0, 8000.0)


@pytest.mark.parametrize("name", family_names())
def test_promises_what_rows_cost_at_least(fitted, name):
    model = fitted[name]
    assert isinstance(model, KnowsRowCost)
    least = model.least_rows_s(600)
    assert least.shape == (601,) and least[0] == 0
    rows = np.arange(601.0)
    for context in (0.0, 5_000.0, 400_000.0):
        grown = np.diff(model.predict(rows, np.full(601, context)))
        assert (grown >= np.diff(least) - 1e-12).all()


@pytest.mark.parametrize("name", family_names())
def test_refuses_too_little(name):
    with pytest.raises(NotEnough, match="decode alone"):
        family(name).fit(with_prefill(steps(straight, 100, seed=1), 1e-4, seed=2), ())


def test_an_unknown_family_is_named():
    with pytest.raises(ValueError, match="no family 'tree'; choose one of linear"):
        family("tree")


@st.composite
def training_data(draw):
    """Anything that might be measured: noise, outliers, narrow ranges, constant columns."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(40, 300))
    most_rows = draw(st.sampled_from([1, 7, 64, 900]))
    rows = np.rint(np.exp2(random.uniform(0, np.log2(most_rows), count)))
    context = np.rint(random.uniform(0, draw(st.sampled_from([1.0, 4e3, 1e6])), count))
    prefill = random.integers(1, 4096, count) * (random.random(count) < draw(st.floats(0, 0.5)))
    drafts = random.integers(1, 64, count) * (random.random(count) < draw(st.floats(0, 0.3)))
    latency = np.exp(random.normal(-4, draw(st.sampled_from([0.01, 0.5, 3.0])), count))
    latency[random.random(count) < 0.02] *= 1000
    samples = Samples(rows, context, prefill.astype(float), drafts.astype(float), latency)
    return samples, draw(st.sampled_from([(), GRAPHS]))


@pytest.mark.parametrize("name", family_names())
@QUICK
@given(data=training_data(), seed=st.integers(0, 2**32 - 1))
def test_more_work_never_takes_less_time(name, data, seed):
    """Externality, the difference of two predictions, is never negative."""
    train, graphs = data
    try:
        model = family(name).fit(train, graphs)
    except NotEnough:
        return
    random = np.random.default_rng(seed)
    shape = [
        random.integers(1, 2000, 200).astype(float),
        random.integers(0, 3_000_000, 200).astype(float),
        random.integers(0, 9000, 200).astype(float) * random.integers(0, 2, 200),
        random.integers(0, 400, 200).astype(float) * random.integers(0, 2, 200),
    ]
    for predict in (model.predict, model.predict_p90):
        before = predict(*shape)
        assert np.isfinite(before).all() and (before > 0).all()
        for axis, most in enumerate((64, 100_000, 5000, 200)):
            more = list(shape)
            more[axis] = shape[axis] + random.integers(1, most, 200)
            assert ((predict(*more) - before) / before >= NEVER_LESS).all()
        one = predict(*(float(column[0]) for column in shape))
        assert one == before[0]
