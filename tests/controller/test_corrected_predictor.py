"""Predictors that are wrong, and what a correction makes of them."""

from __future__ import annotations

import numpy as np
import pytest
from controller_builders import KnownPredictor, fitted_line
from hypothesis import given
from hypothesis import strategies as st

from controller_service.predictors.base import StepSample
from controller_service.predictors.constant import ROW_SHARE
from controller_service.predictors.corrected import CorrectedPredictor
from controller_service.predictors.registry import make_predictor


class Stubborn(KnownPredictor):
    """Learns nothing."""

    def observe(self, sample: StepSample) -> None:
        return

    def refit(self, now_s: float) -> None:
        return


def measured(rows: int, context: int, factor: float) -> StepSample:
    truth = 0.01 + 1e-4 * rows + 1e-8 * context
    return StepSample(rows, context, 0, truth * factor)


@pytest.mark.parametrize("factor", [0.5, 2.0, 4.0])
def test_a_wrong_base_is_put_right_within_tens_of_steps(factor: float) -> None:
    predictor = CorrectedPredictor(Stubborn(0.01, 1e-4, 1e-8))
    for step in range(40):
        predictor.observe(measured(8 + step, 1000 * step, factor))
    assert predictor.predict(32.0, 5000.0) == pytest.approx(
        factor * (0.01 + 32e-4 + 5e-5), rel=0.02
    )
    assert predictor.coefficients()["residual_ratio"] == pytest.approx(factor, rel=0.02)


SHAPES = st.tuples(st.integers(1, 5000), st.integers(0, 10**6), st.floats(1e-6, 10.0))


@given(
    st.lists(SHAPES, max_size=80),
    st.lists(st.tuples(st.integers(1, 300), st.floats(1e-3, 1.0)), max_size=60),
    st.integers(0, 3000),
    st.integers(0, 10**6),
    st.booleans(),
)
def test_more_rows_never_look_cheaper(shapes, dwelling, rows, context, refit) -> None:
    predictor = CorrectedPredictor(fitted_line())
    for count, (more_rows, its_context, latency_s) in enumerate(shapes):
        predictor.observe(StepSample(more_rows, its_context, 0, latency_s))
        if refit and count == 40:
            predictor.refit(1.0)
    for count, latency_s in dwelling:
        predictor.observe(StepSample(count, 20_000, 0, latency_s))
    counts = np.arange(rows, rows + 300.0)
    by_rows = predictor.predict(counts, np.full(300, float(context)))
    assert (by_rows > 0).all()
    assert (np.diff(by_rows) >= 0).all()
    longer = predictor.predict(counts, np.full(300, context + 100.0))
    assert (longer >= by_rows).all()
    p90 = predictor.predict_p90(counts, np.full(300, float(context)))
    assert (np.diff(p90) >= 0).all()


def test_a_bias_is_learnt_by_batch_size() -> None:
    """A base that is right for few rows and a fifth too low for many."""
    predictor = CorrectedPredictor(Stubborn(0.01, 1e-4, 1e-8))
    rng = np.random.default_rng(2)
    for _ in range(300):
        rows = int(rng.choice([8, 128]))
        predictor.observe(measured(rows, 1000, 1.2 if rows == 128 else 1.0))
    for rows, factor in ((8, 1.0), (128, 1.2)):
        truth = measured(rows, 1000, factor).latency_s
        assert predictor.predict(float(rows), 1000.0) == pytest.approx(truth, rel=0.02)


def test_a_falling_bias_leaves_a_row_its_cost() -> None:
    """Measured steps that take longer with few rows than with many: noise, or another machine."""
    predictor = CorrectedPredictor(Stubborn(0.01, 1e-4, 1e-8))
    for step in range(400):
        rows = 8 if step % 2 else 64
        predictor.observe(StepSample(rows, 0, 0, 0.02 if rows == 8 else 0.012))
    by_rows = predictor.predict(np.arange(1.0, 300.0), np.zeros(299))
    assert (np.diff(by_rows) > 0).all()


@pytest.mark.parametrize("factor", [0.5, 2.0])
@pytest.mark.parametrize("stalls", [0.0, 0.03])
@pytest.mark.parametrize("name", ["corrected-linear", "corrected-constant"])
def test_another_machine_is_followed_within_tens_of_steps(name, stalls, factor) -> None:
    """Half or twice as fast from step 400 on, with 1 % noise, refits, and now and then a stall."""
    predictor = make_predictor(name)
    rng = np.random.default_rng(3)
    errors = []
    for step in range(700):
        rows = int(rng.integers(30, 70))
        context = 0 if name == "corrected-constant" else rows * int(rng.integers(800, 1200))
        truth = 0.01 + 4e-5 * rows + 1e-8 * context
        truth *= (factor if step >= 400 else 1.0) * rng.normal(1.0, 0.01)
        if predictor.fitted:
            errors.append(abs(predictor.predict(float(rows), float(context)) / truth - 1.0))
        stalled = 8.0 if rng.random() < stalls else 1.0
        predictor.observe(StepSample(rows, context, 0, truth * stalled))
        if predictor.refit_due(0.3 * step):
            predictor.refit(0.3 * step)
    since = errors[-300:]
    assert np.median(since[40:80]) < 0.03
    assert np.median(since[80:]) < 0.02
    assert np.median(errors[-400:-300]) < 0.02


@pytest.mark.parametrize("noise", [0.01, 0.08])
def test_p90_covers_nine_steps_in_ten(noise: float) -> None:
    predictor = CorrectedPredictor(Stubborn(0.01, 1e-4, 1e-8))
    rng = np.random.default_rng(5)
    covered = []
    for _ in range(4000):
        rows, context = int(rng.integers(1, 200)), int(rng.integers(0, 200_000))
        step = measured(rows, context, rng.normal(1.0, noise))
        covered.append(step.latency_s <= predictor.predict_p90(float(rows), float(context)))
        predictor.observe(step)
    assert 0.88 <= np.mean(covered[200:]) <= 0.92


def test_one_pause_of_the_machine_moves_it_little() -> None:
    predictor = CorrectedPredictor(Stubborn(0.01, 1e-4, 1e-8))
    for _ in range(100):
        predictor.observe(measured(16, 0, 1.0))
    predictor.observe(measured(16, 0, 3.0))
    assert predictor.predict(16.0, 0.0) == pytest.approx(0.0116, rel=0.11)


def test_its_version_grows_with_the_correction_and_not_with_every_step() -> None:
    predictor = CorrectedPredictor(Stubborn(0.01, 1e-4, 1e-8))
    predictor.observe(measured(16, 0, 1.0))
    before = predictor.version
    for _ in range(50):
        predictor.observe(measured(16, 0, 1.001))
    assert predictor.version == before
    for _ in range(50):
        predictor.observe(measured(16, 0, 1.5))
    assert predictor.version > before


class Refitted(Stubborn):
    """Becomes right at its refit."""

    def refit(self, now_s: float) -> None:
        self._a, self._b, self._c = 0.02, 2e-4, 2e-8
        self.version += 1


def test_after_a_refit_the_newest_steps_decide_the_correction() -> None:
    predictor = CorrectedPredictor(Refitted(0.01, 1e-4, 1e-8))
    for step in range(64):
        predictor.observe(measured(8 + step, 100 * step, 2.2))
    assert predictor.correction_ratio == pytest.approx(2.2, rel=0.01)
    before = predictor.version
    predictor.refit(1.0)
    assert predictor.correction_ratio == pytest.approx(1.1, rel=0.01)
    assert predictor.version > before
    assert predictor.predict(32.0, 0.0) == pytest.approx(2.2 * 0.0132, rel=0.01)


@given(st.lists(st.floats(0, float("inf")) | st.just(float("nan")), max_size=60))
def test_nonsense_leaves_a_finite_prediction(latencies) -> None:
    predictor = CorrectedPredictor(Stubborn(0.01, 1e-4, 1e-8))
    for count, latency_s in enumerate(latencies):
        predictor.observe(StepSample(count, 100 * count, 0, latency_s, count % 3))
    assert 0 < predictor.predict(16.0, 1e4) < float("inf")


def test_the_constant_predictor_knows_rows_and_no_context() -> None:
    predictor = make_predictor("constant")
    for step in range(40):
        predictor.observe(
            StepSample(step + 1, 10**5 * step, 0, 0.02 * (1 + ROW_SHARE * (step + 1)))
        )
    assert not predictor.fitted
    predictor.refit(0.0)
    assert predictor.predict(10.0, 0.0) == predictor.predict(10.0, 1e6)
    assert predictor.predict(10.0, 0.0) == pytest.approx(0.02 * (1 + 10 * ROW_SHARE))
