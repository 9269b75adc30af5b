"""Standing orders: valid by the contract, and worth what the slack affords."""

from __future__ import annotations

import pytest
from controller_builders import KnownPredictor, batch, extra, state_of, trunk
from governor_protos import decode_to_engine, encode
from governor_protos.limits import MAX_BANDS
from governor_protos.messages import Decision
from hypothesis import given
from hypothesis import strategies as st

from controller_service.policies.registry import parse_policy
from controller_service.predictors.linear import OnlineLinearPredictor
from controller_service.state import StepState

LINE = KnownPredictor(0.01, 1e-4, 1e-7)


def orders(name, state, max_rows, predictor=LINE):
    bands = parse_policy(name).standing_orders(state, predictor, max_rows)
    frame = encode(Decision(1, 4, b"", bands, name, 0.0, 0.0, 0.0, 0.0))
    return decode_to_engine(frame).orders


@given(
    st.sampled_from(["off", "eager", "cap:3", "taper", "random:0.5"]),
    st.integers(0, (1 << 31) - 1),
    st.integers(0, 8),
)
def test_orders_keep_the_contract(name, max_rows, requests):
    bands = orders(name, StepState.from_rows(batch(requests, 3)), max_rows)
    assert 1 <= len(bands) <= MAX_BANDS
    assert bands[-1].max_rows >= max_rows


@pytest.mark.parametrize(
    ("name", "width", "extras"), [("off", 1, 0), ("cap:3", 3, -1), ("eager", -1, -1)]
)
def test_fixed_orders(name, width, extras):
    (band,) = orders(name, state_of([trunk(1), extra(1)]), 64)
    assert (band.max_rows, band.branch_width, band.extra_rows) == (64, width, extras)


def test_taper_orders_everything_to_advance_until_fitted():
    (band,) = orders("taper", state_of([trunk(1)]), 64, OnlineLinearPredictor())
    assert (band.branch_width, band.extra_rows) == (-1, -1)


def test_taper_orders_as_many_extras_as_the_slack_affords():
    state = state_of([trunk(1, context_tokens=1000, since_last_token_s=0.02), extra(1)])
    mean = state.running_context_tokens / state.running_rows
    slack = 0.03
    bands = orders("taper", state, 200)
    assert [band.max_rows for band in bands] == [1, 2, 4, 8, 16, 32, 64, 128, 200]
    for band in bands:
        rows = band.max_rows
        t0 = LINE.predict(float(rows), rows * mean)
        budget = t0 + 0.8 * max(0.0, slack - t0)
        affordable = [
            k for k in range(201) if LINE.predict(float(rows + k), (rows + k) * mean) <= budget
        ]
        assert band.extra_rows == max(affordable)


def test_taper_orders_no_extras_without_slack():
    state = state_of([trunk(1, since_last_token_s=0.2), extra(1)])
    assert {band.extra_rows for band in orders("taper", state, 64)} == {0}
