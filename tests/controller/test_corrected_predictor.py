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


@given(st.lists(st.floats(1e-5, 10), max_size=60), st.integers(1, 500), st.integers(0, 10**6))
def test_more_rows_never_look_cheaper(latencies, rows, context) -> None:
    predictor = CorrectedPredictor(fitted_line())
    for latency_s in latencies:
        predictor.observe(StepSample(16, 20_000, 0, latency_s))
    counts = np.array([rows, rows + 1.0])
    first, second = predictor.predict(counts, np.array([context, context + 100.0]))
    assert 0 <= first <= second


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


def test_a_refit_starts_the_correction_anew() -> None:
    predictor = make_predictor("corrected-linear")
    for step in range(64):
        predictor.observe(measured(8 + step, 100 * step, 1.0))
    predictor.refit(0.0)
    for step in range(64):
        predictor.observe(measured(8 + step, 100 * step, 2.0))
    assert predictor.coefficients()["residual_ratio"] > 1.5
    predictor.refit(1.0)
    assert predictor.coefficients()["residual_ratio"] == 1.0


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
