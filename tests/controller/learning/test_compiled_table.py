"""The table that models are compiled into."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller_service.predictors.table import CompiledTable, Surcharge

NOTHING = Surcharge(np.array([0.0, 1.0]), np.array([0.0, 0.0]), 0.0)
CONTEXT = np.array([0.0, 100.0, 1000.0])


def table(values=None, slopes=(0.5, 0.001), prefill=NOTHING, draft=NOTHING):
    if values is None:
        values = np.add.outer(np.array([1.0, 1.0, 5.0, 6.0]), CONTEXT / 1000)
    return CompiledTable(CONTEXT, values, slopes, prefill, draft)


def test_every_row_has_its_own_line():
    assert table().predict(1.0, 0.0) == 1.0
    assert table().predict(2.0, 0.0) == 5.0
    assert table().predict(2.0, 550.0) == pytest.approx(5.55)
    assert table().predict(2.9, 0.0) == 5.0  # rows are whole


def test_grows_by_its_slopes_beyond_the_grid():
    assert table().predict(5.0, 0.0) == pytest.approx(6.0 + 2 * 0.5)
    assert table().predict(3.0, 3000.0) == pytest.approx(7.0 + 2.0)


@given(st.integers(0, 10), st.floats(0, 5000), st.floats(0, 300), st.floats(0, 30))
def test_one_step_and_an_array_of_steps_agree_to_the_bit(rows, context, prefill, draft):
    kinked = Surcharge(np.array([0.0, 16.0, 100.0]), np.array([0.0, 0.5, 0.6]), 1e-6)
    model = table(prefill=kinked, draft=kinked.scaled(2.0))
    many = model.predict(*(np.full(3, float(value)) for value in (rows, context, prefill, draft)))
    assert many[1] == model.predict(float(rows), context, prefill, draft)


def test_mixed_scalars_and_arrays():
    found = table().predict(2.0, np.array([0.0, 550.0]))
    assert found == pytest.approx([5.0, 5.55])


def test_surcharges_go_on_beyond_what_was_measured():
    surcharge = Surcharge(np.array([0.0, 10.0, 20.0]), np.array([0.0, 1.0, 1.5]), 0.01)
    assert surcharge.at(0.0, 7.0) == 0.0
    assert surcharge.at(15.0, 0.0) == pytest.approx(1.25)
    assert surcharge.at(40.0, 0.0) == pytest.approx(1.5 + 20 * 0.05)
    assert surcharge.at(10.0, 3.0) == pytest.approx(1.0 + 0.3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[2, 2, 2], [1, 2, 2]], "falls"),
        ([[2, 1, 2], [2, 2, 2]], "falls"),
        ([[0, 1, 2], [2, 2, 2]], "above 0"),
        ([[np.nan, 1, 2], [2, 2, 2]], "above 0"),
        ([[1, 2, 2]], "two rows"),
        ([[1, 2], [1, 2]], "one context per column"),
    ],
)
def test_refuses_what_is_no_table(values, message):
    with pytest.raises(ValueError, match=message):
        table(np.array(values, dtype=float))


@pytest.mark.parametrize(
    ("tokens", "seconds", "coupling"),
    [
        ([0.0], [0.0], 0.0),
        ([1.0, 2.0], [0.0, 1.0], 0.0),
        ([0.0, 2.0], [1.0, 2.0], 0.0),
        ([0.0, 2.0, 1.0], [0.0, 1.0, 2.0], 0.0),
        ([0.0, 1.0, 2.0], [0.0, 2.0, 1.0], 0.0),
        ([0.0, 1.0], [0.0, 1.0], -1.0),
    ],
)
def test_refuses_what_is_no_surcharge(tokens, seconds, coupling):
    with pytest.raises(ValueError, match="surcharge"):
        Surcharge(np.array(tokens), np.array(seconds), coupling)
