"""Output over hint: Kaplan and Meier's estimator around a prior that believes clients."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller_service.learning.hints import PRIOR_REQUESTS, RATIOS, HintModel, fit_hints
from controller_service.predictors.base import Floats

NO_LIMIT = 1e9


def fitted(ratio: Floats, stopped: Floats | bool = True, hint: float = 100.0) -> HintModel:
    size = len(ratio)
    return fit_hints(np.full(size, hint), hint * ratio, np.broadcast_to(stopped, size))


def one(value: float) -> Floats:
    return np.array([float(value)])


def expected(model: HintModel, hint: float, written: float, limit: float = NO_LIMIT) -> float:
    return float(model.expected(one(hint), one(written), one(limit))[0])


PRIOR = fitted(np.zeros(0))


def test_before_anything_is_known_clients_are_believed_more_or_less() -> None:
    assert expected(PRIOR, 100, 0) == pytest.approx(105, rel=0.03)
    told = [float(PRIOR.quantile(one(100), one(0), one(NO_LIMIT), q)[0]) for q in (0.1, 0.5, 0.9)]
    assert told == pytest.approx([76, 100, 131], rel=0.05)
    assert 10 < expected(PRIOR, 100, 90) < 40
    # Past its hint a request is one of the careless, and the further the longer it goes on.
    assert expected(PRIOR, 100, 120) < expected(PRIOR, 100, 200) < expected(PRIOR, 100, 400)


@given(st.lists(st.floats(0.01, 60), min_size=1, max_size=40))
def test_who_ended_by_itself_counts_as_one_request_beside_the_prior(ratios: list[float]) -> None:
    ratio = np.array(ratios)
    own = (ratio[None, :] > RATIOS[:, None]).mean(axis=1)
    share = len(ratio) / (len(ratio) + PRIOR_REQUESTS)
    wanted = share * own + (1 - share) * PRIOR.survival
    assert fitted(ratio).survival == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.3])
def test_a_bias_of_all_clients_is_learnt(factor: float) -> None:
    rng = np.random.default_rng(1)
    model = fitted(factor * np.exp(0.1 * rng.standard_normal(400)))
    assert expected(model, 300, 0) == pytest.approx(300 * factor, rel=0.05)
    half = 150 * factor
    assert expected(model, 300, half) == pytest.approx(half, rel=0.1)


def test_means_and_quantiles_are_calibrated_though_many_were_cut_off() -> None:
    rng = np.random.default_rng(2)
    true = 1.5 * np.exp(0.4 * rng.standard_normal(4000))
    until = rng.uniform(0, 5, 4000)
    stopped = true <= until
    assert 0.5 < stopped.mean() < 0.75
    model = fitted(np.minimum(true, until), stopped)
    for written in (0.0, 0.8, 1.6):
        ahead = true[true > written] - written
        assert expected(model, 1000, 1000 * written) == pytest.approx(1e3 * ahead.mean(), rel=0.1)
        for share in (0.25, 0.5, 0.75):
            told = model.quantile(one(1000), one(1000 * written), one(NO_LIMIT), share)
            assert np.mean(1000 * ahead <= told) == pytest.approx(share, abs=0.05)


def test_where_everybody_was_cut_off_the_prior_goes_on() -> None:
    model = fitted(np.full(500, 0.5), stopped=False)
    assert expected(model, 100, 60) == pytest.approx(expected(PRIOR, 100, 60), rel=0.01)
    assert expected(model, 100, 0) > expected(PRIOR, 100, 0)


@given(
    st.lists(st.tuples(st.floats(0.001, 1e4), st.booleans()), max_size=20),
    st.integers(1, 1 << 31),
    st.integers(0, 1 << 31),
    st.integers(0, 1 << 31),
    st.floats(0.01, 0.99),
)
def test_what_is_left_lies_within_what_may_be_written(
    lives: list[tuple[float, bool]], hint: int, written: int, limit: int, share: float
) -> None:
    ratio, stopped = np.array([life[0] for life in lives]), np.array([life[1] for life in lives])
    model = fitted(ratio, stopped.astype(np.bool_))
    assert (np.diff(model.survival) <= 0).all()
    assert model.survival.min() >= 0
    asked = (one(hint), one(written), one(limit))
    for left in (model.expected(*asked), model.quantile(*asked, share)):
        assert -1e-6 <= left[0] <= max(limit - written, 0) * (1 + 1e-9) + 1e-6
