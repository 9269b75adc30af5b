"""Noise and shifts of step times."""

from __future__ import annotations

import statistics

import pytest
from governor_profiles.variation import LIMIT_SD, Shift, StepVariation
from hypothesis import given
from hypothesis import strategies as st


def test_without_settings_a_step_takes_what_the_profile_says() -> None:
    variation = StepVariation()
    assert [variation.vary(0.03, step) for step in range(1, 4)] == [0.03] * 3


def test_noise_has_the_spread_that_was_asked_for_and_no_bias() -> None:
    variation = StepVariation(noise=0.05, seed=3)
    factors = [variation.vary(0.02, step) / 0.02 for step in range(1, 20_001)]
    assert statistics.fmean(factors) == pytest.approx(1.0, abs=0.002)
    assert statistics.stdev(factors) == pytest.approx(0.05, rel=0.03)


@given(st.floats(0, 0.2), st.integers(0, 2**32), st.floats(1e-6, 60))
def test_noise_is_bounded_and_follows_its_seed(noise: float, seed: int, step_s: float) -> None:
    one, other = StepVariation(noise, seed), StepVariation(noise, seed)
    for step in range(1, 50):
        varied_s = one.vary(step_s, step)
        assert varied_s > 0
        assert abs(varied_s - step_s) <= LIMIT_SD * noise * step_s * (1 + 1e-9)
        assert varied_s == other.vary(step_s, step)


def test_seeds_differ() -> None:
    assert StepVariation(0.01, 1).vary(1.0, 1) != StepVariation(0.01, 2).vary(1.0, 1)


def test_a_shift_changes_the_machine_from_its_step_on() -> None:
    variation = StepVariation(shift=Shift.parse("3:1.5"))
    assert [variation.vary(2.0, step) for step in range(1, 6)] == [2.0, 2.0, 3.0, 3.0, 3.0]


@pytest.mark.parametrize("text", ["", "5", "5:", ":2", "0:2", "5:0", "5:nan", "a:b", "5:101"])
def test_a_bad_shift_is_explained(text: str) -> None:
    with pytest.raises(ValueError, match="STEP:FACTOR"):
        Shift.parse(text)
