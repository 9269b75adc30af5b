"""How long requests go on, and how often their drafts are right."""

from __future__ import annotations

import numpy as np
import pytest
from governor_protos.messages import EndReason
from hypothesis import given, settings
from hypothesis import strategies as st

from controller_service.learning.acceptance import AcceptanceModel, fit_acceptance
from controller_service.learning.lengths import LengthModel, fit_lengths
from controller_service.logbook.reading import Ends

STOPPED, LENGTH, ABORTED = map(int, (EndReason.STOPPED, EndReason.LENGTH, EndReason.ABORTED))


def ends_of(output, reason=STOPPED, prompt=100, most=4096, proposed=0, accepted=0):
    count = len(output)

    def column(value):
        return np.broadcast_to(np.asarray(value, dtype=np.int64), count).copy()

    return Ends(
        prompt_tokens=column(prompt),
        output_tokens=column(output),
        max_new_tokens=column(most),
        reason=column(reason),
        age_s=np.ones(count),
        draft_tokens=column(proposed),
        accepted_tokens=column(accepted),
    )


def geometric(count, mean, seed=1):
    return np.random.default_rng(seed).geometric(1 / mean, count)


@pytest.mark.parametrize(("quantile", "expected"), [(0.5, 69.0), (0.9, 230.0)])
@pytest.mark.parametrize("so_far", [0, 100])
def test_a_request_without_memory_has_as_long_to_go_as_ever(quantile, expected, so_far):
    """Geometric lengths of mean 100: the remaining length hangs on nothing."""
    model = fit_lengths(ends_of(geometric(6000, 100)))
    assert model.remaining(100, 4096, so_far, quantile) == pytest.approx(expected, rel=0.12)


def test_cut_off_requests_would_have_gone_on():
    """Half are cut at 50 tokens. Taken for the truth, they would halve the estimate."""
    true = geometric(6000, 100)
    cut = np.arange(6000) % 2 == 0
    output = np.where(cut, np.minimum(true, 50), true)
    reason = np.where(
        cut & (true > 50), np.where(np.arange(6000) % 4 == 0, LENGTH, ABORTED), STOPPED
    )
    model = fit_lengths(ends_of(output, reason))
    assert model.remaining(100, 4096, 0, 0.5) == pytest.approx(69, rel=0.12)
    assert model.remaining(100, 4096, 50, 0.5) == pytest.approx(69, rel=0.12)
    assert np.median(output) < 55


def test_regimes_differ_and_a_new_one_takes_after_all():
    prompt = np.repeat([16, 4096], 2000)
    output = np.concatenate([geometric(2000, 20), geometric(2000, 400)])
    model = fit_lengths(ends_of(output, prompt=prompt))
    short, long, new = (model.remaining(tokens, 4096, 0) for tokens in (16, 4096, 10**6))
    assert short == pytest.approx(14, rel=0.25) and long == pytest.approx(277, rel=0.2)
    assert short < new < long
    assert model.regimes == 2


def test_a_regime_of_one_request_is_pulled_to_all():
    output = np.concatenate([geometric(2000, 100), [4000]])
    prompt = np.concatenate([np.full(2000, 16), [4096]])
    model = fit_lengths(ends_of(output, prompt=prompt))
    assert model.remaining(4096, 4096, 0) < 150


def test_never_more_than_the_request_allows():
    model = fit_lengths(ends_of(geometric(500, 100)))
    assert model.remaining(100, 64, 60, 0.99) <= 4
    assert model.remaining(100, 64, 64) == 0
    assert model.remaining(100, 10**6, 10**5, 0.5) == 10**6 - 10**5  # nobody got that far


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(30, 200), st.integers(0, 5000), st.integers(0, 3000))
def test_quantiles_are_ordered_and_bounded(seed, count, so_far, most):
    random = np.random.default_rng(seed)
    reason = random.integers(0, 3, count)
    reason[0] = STOPPED
    model = fit_lengths(ends_of(random.integers(0, 3000, count), reason))
    found = [model.remaining(100, most, so_far, q) for q in (0.1, 0.5, 0.9, 0.99)]
    assert found == sorted(found)
    assert all(0 <= tokens <= max(most - so_far, 0) for tokens in found)


def test_little_is_no_model():
    assert fit_lengths(ends_of(geometric(29, 100))) is None
    assert fit_lengths(ends_of(geometric(100, 100), LENGTH)) is None
    assert fit_acceptance(ends_of(np.ones(9), proposed=10, accepted=5)) is None
    assert fit_acceptance(ends_of(np.ones(100))) is None
    with pytest.raises(ValueError, match="between 0 and 1"):
        fit_lengths(ends_of(geometric(100, 100))).remaining(1, 1, 1, 1.0)


@pytest.mark.parametrize(("alpha", "beta"), [(7.0, 3.0), (30.0, 70.0)])
def test_the_prior_is_found_again(alpha, beta):
    random = np.random.default_rng(1)
    proposed = random.integers(20, 200, 4000)
    accepted = random.binomial(proposed, random.beta(alpha, beta, 4000))
    model = fit_acceptance(ends_of(np.ones(4000), proposed=proposed, accepted=accepted))
    assert model.mean() == pytest.approx(alpha / (alpha + beta), abs=0.01)
    assert model.alpha + model.beta == pytest.approx(alpha + beta, rel=0.15)


def test_requests_that_are_all_alike_leave_a_firm_prior():
    random = np.random.default_rng(1)
    accepted = random.binomial(100, 0.6, 500)
    model = fit_acceptance(ends_of(np.ones(500), proposed=100, accepted=accepted))
    assert model.mean(accepted=0, proposed=10) == pytest.approx(0.6, abs=0.05)


@given(st.integers(0, 2**31), st.integers(10, 100), st.integers(0, 50), st.integers(0, 50))
def test_a_posterior_is_a_probability_that_follows_what_was_seen(seed, count, good, bad):
    random = np.random.default_rng(seed)
    proposed = random.integers(1, 50, count)
    accepted = random.integers(0, proposed + 1)
    model = fit_acceptance(ends_of(np.ones(count), proposed=proposed, accepted=accepted))
    before, after = model.mean(good, good + bad), model.mean(good + 1, good + bad + 1)
    assert 0 < before < after < 1


def test_stored_and_loaded():
    lengths = fit_lengths(ends_of(geometric(100, 50)))
    again = LengthModel.from_bytes(lengths.to_bytes())
    assert again.remaining(100, 500, 7) == lengths.remaining(100, 500, 7)
    acceptance = AcceptanceModel(2.0, 3.0)
    assert AcceptanceModel.from_bytes(acceptance.to_bytes()).mean(1, 2) == acceptance.mean(1, 2)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", AcceptanceModel(1.0, 1.0).to_bytes()[:-9]])
def test_damaged_files_are_refused(content):
    for load in (LengthModel.from_bytes, AcceptanceModel.from_bytes):
        with pytest.raises(ValueError, match="npz"):
            load(content)
