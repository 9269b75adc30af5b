"""Errors of models, and the rule that promotes one."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from learning_samples import bent, steps, straight

from controller_service.learning.evaluate import (
    evaluate,
    externality_error,
    measured_externality_error,
)
from controller_service.learning.promotion import judge
from controller_service.learning.samples import Samples


class Known:
    """A model that says what it is told to."""

    family = "known"

    def __init__(self, seconds, p90=1.0):
        self._seconds, self._p90 = seconds, p90

    def predict(self, rows, context, prefill=0.0, draft=0.0):
        return self._seconds(rows, context)

    def predict_p90(self, rows, context, prefill=0.0, draft=0.0):
        return self._p90 * self._seconds(rows, context)


def scaled(truth, factor, when=lambda rows, context: True):
    return lambda rows, context: truth(rows, context) * np.where(when(rows, context), factor, 1.0)


def test_the_truth_is_not_off():
    found = evaluate(Known(straight), steps(straight, 500, seed=1, noise=0.0))
    assert found.step_mape == 0 and found.step_p90_coverage == 1
    assert found.samples == 500 == sum(one.samples for one in found.by_regime)


def test_errors_by_regime():
    samples = steps(straight, 800, seed=1, noise=0.0)
    wrong_when_large = Known(scaled(straight, 1.25, lambda rows, _: rows > 64))
    found = evaluate(wrong_when_large, samples)
    for one in found.by_regime:
        assert one.mape == pytest.approx(
            0.25 if "rows 65-128" in one.name or "rows 129-" in one.name else 0
        )
    share = (samples.rows > 64).mean()
    assert found.step_mape == pytest.approx(0.25 * share)


def test_coverage_counts_steps_below_the_percentile():
    samples = steps(straight, 4000, seed=1, noise=0.01)
    found = evaluate(Known(straight, p90=1.0128), samples)
    assert found.step_p90_coverage == pytest.approx(0.9, abs=0.02)


def test_nothing_to_evaluate_on():
    with pytest.raises(ValueError, match="no usable sample"):
        evaluate(Known(straight), Samples.join([]))


def test_externality_is_off_by_as_much_as_rows_are_mispriced():
    def dear(rows, context):
        return straight(rows, context) + 6e-5 * rows  # twice the price of a row

    rows, context = np.arange(1.0, 50), np.full(49, 1e4)
    found = externality_error(Known(dear), straight, rows, context, (0.0,), (1, 2))
    assert found.relative == pytest.approx(1.0)
    assert found.bias == pytest.approx(1.0)
    assert found.comparisons == 98
    offset = Known(lambda rows, context: straight(rows, context) + 1.0)
    assert externality_error(offset, straight, rows, context).relative == pytest.approx(0, abs=1e-9)


def test_measured_externality_tells_models_apart():
    samples = steps(bent, 6000, seed=1)
    right = measured_externality_error(Known(bent), samples)
    free = measured_externality_error(
        Known(lambda rows, context: bent(rows * 0 + 1, context)), samples
    )
    assert right.relative < 0.35 < free.relative
    assert free.bias == pytest.approx(-1, abs=0.3)
    assert measured_externality_error(Known(bent), steps(bent, 20, seed=1)) is None


HELD_OUT = steps(straight, 3000, seed=9)
GOOD = evaluate(Known(straight), HELD_OUT)
POOR = evaluate(Known(scaled(straight, 1.2)), HELD_OUT)


def test_what_is_better_everywhere_is_promoted():
    verdict = judge(GOOD, POOR)
    assert verdict.promote
    assert "worse in none" in verdict.reason
    assert not any(one.worse for one in verdict.by_regime)


def test_what_is_no_better_is_not():
    assert not judge(GOOD, GOOD).promote
    assert "no better" in judge(GOOD, GOOD).reason
    assert not judge(POOR, GOOD).promote


def test_one_regime_that_matters_is_enough_to_refuse():
    """Better in most, but not in one: whoever is served there would pay for it."""
    name = max(GOOD.by_regime, key=lambda one: one.samples).name
    keys = {one.key for one in GOOD.by_regime if one.name == name}
    broken = msgspec.structs.replace(
        GOOD,
        by_regime=tuple(
            msgspec.structs.replace(one, mape=0.5) if one.key in keys else one
            for one in GOOD.by_regime
        ),
    )
    verdict = judge(broken, POOR)
    assert not verdict.promote
    assert name in verdict.reason and "50.00%" in verdict.reason
    assert judge(broken, POOR, least_samples=10**6).reason.startswith("no regime")


def test_a_regime_of_few_steps_has_no_say():
    odd = msgspec.structs.replace(GOOD.by_regime[0], key=10**6, samples=3, mape=9.0)
    candidate = msgspec.structs.replace(GOOD, by_regime=(*GOOD.by_regime, odd))
    fine = msgspec.structs.replace(odd, mape=0.0)
    incumbent = msgspec.structs.replace(POOR, by_regime=(*POOR.by_regime, fine))
    assert judge(candidate, incumbent).promote


def test_a_little_worse_within_noise_is_tolerated():
    worse = msgspec.structs.replace(GOOD.by_regime[0], mape=GOOD.by_regime[0].mape + 0.0005)
    incumbent = msgspec.structs.replace(POOR, by_regime=(GOOD.by_regime[0], *POOR.by_regime[1:]))
    candidate = msgspec.structs.replace(GOOD, by_regime=(worse, *GOOD.by_regime[1:]))
    assert judge(candidate, incumbent, least_samples=1, least_share=0).promote


def test_both_must_have_seen_the_same_samples():
    with pytest.raises(ValueError, match="same samples"):
        judge(GOOD, evaluate(Known(straight), steps(straight, 300, seed=1)))
