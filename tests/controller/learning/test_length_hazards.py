"""Output length by trees: calibrated, honest about who was cut off, and no worse than regimes."""

from __future__ import annotations

import numpy as np
import pytest
from governor_protos.messages import EndReason, RequestEnd
from hypothesis import given
from hypothesis import strategies as st

from controller_service.learning.arrays import pack
from controller_service.learning.curves import Curves
from controller_service.learning.ends import Lives
from controller_service.learning.hazard_table import HazardTable
from controller_service.learning.hazards import fit_hazards
from controller_service.learning.length_fit import fitted
from controller_service.learning.lengths import _bit_length, _key, _keys
from controller_service.service.fits import InlineFits, ProcessFits
from controller_service.service.lengths import LEAST_FOR_TREES, LengthBook

LIMIT = 8192


def drawn(count: int, seed: int, cut_share: float = 0.0) -> tuple[Lives, np.ndarray, np.ndarray]:
    """Answers that grow with the prompt, of which some are cut off; and true lengths, prompts."""
    rng = np.random.default_rng(seed)
    prompt = rng.integers(16, 256, count)
    length = np.maximum(4 * prompt * np.exp(0.5 * rng.standard_normal(count)), 1).astype(np.int64)
    length = np.minimum(length, LIMIT)
    cut = rng.random(count) < cut_share
    output = np.where(cut, np.maximum(length * rng.random(count), 1), length).astype(np.int64)
    reason = np.where(cut, int(EndReason.ABORTED), int(EndReason.STOPPED))
    none = np.zeros(count, dtype=np.int64)
    return Lives(prompt, output, np.full(count, LIMIT), reason, none, none), length, prompt


@pytest.mark.parametrize("cut_share", [0.0, 0.4])
def test_means_and_quantiles_are_calibrated_though_many_were_cut_off(cut_share: float) -> None:
    table = fit_hazards(drawn(3000, 1, cut_share)[0])
    assert table is not None
    _, length, prompt = drawn(3000, 2)
    cells, limit = table.cells(prompt, np.full(len(prompt), LIMIT)), np.full(len(prompt), LIMIT)
    for written in (0.0, 300.0):
        alive = length > written
        at = np.full(np.count_nonzero(alive), written)
        expected = table.curves.expected(cells[alive], at, limit[alive])
        assert expected.mean() == pytest.approx((length[alive] - written).mean(), rel=0.12)
        for share in (0.25, 0.5, 0.9):
            told = table.curves.quantile(cells[alive], at, limit[alive], share)
            assert np.mean(length[alive] - written <= told) == pytest.approx(share, abs=0.08)
    short, long = (table.cells(np.array([size]), np.array([LIMIT])) for size in (20, 240))
    at_start = (np.zeros(1), np.full(1, float(LIMIT)))
    assert table.curves.expected(long, *at_start) > 3 * table.curves.expected(short, *at_start)


def test_trees_that_say_no_more_than_regimes_are_left_out() -> None:
    rng = np.random.default_rng(3)
    length = rng.geometric(0.01, 1500)
    none = np.zeros(1500, dtype=np.int64)
    same = np.full(1500, 64)
    stopped = np.full(1500, int(EndReason.STOPPED))
    lives = Lives(same, length, np.full(1500, LIMIT), stopped, none, none)
    assert fit_hazards(lives) is None
    assert fit_hazards(drawn(100, 1)[0]) is None


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=8),
    st.floats(0, 200),
    st.floats(0, 400),
    st.floats(0.01, 0.99),
)
def test_what_is_left_lies_within_what_may_be_written(
    heights: list[float], written: float, limit: float, share: float
) -> None:
    survival = np.array([[1.0, *sorted(heights, reverse=True)]])
    tokens = np.array([0.0, *np.cumsum(np.arange(1.0, len(heights) + 1.0))])
    curves = Curves(tokens, survival)
    asked = (np.zeros(1, dtype=np.intp), np.array([written]), np.array([limit]))
    for left in (curves.expected(*asked), curves.quantile(*asked, share)):
        assert np.isfinite(left).all()
        assert 0.0 <= left[0] <= max(limit - written, 0.0) + 1e-9


def test_a_mean_is_the_area_under_the_curve() -> None:
    curves = Curves(np.array([0.0, 10.0, 20.0]), np.array([[1.0, 1.0, 0.0]]))
    asked = np.zeros(4, dtype=np.intp)
    written = np.array([0.0, 5.0, 10.0, 25.0])
    assert curves.expected(asked, written, np.full(4, 100.0)).tolist() == [15.0, 10.0, 5.0, 25.0]
    assert curves.expected(asked[:1], written[:1], np.array([8.0])).tolist() == [8.0]
    assert curves.quantile(asked[:1], written[:1], np.array([100.0]), 0.5).tolist() == [15.0]


@given(st.integers(0, 1 << 30), st.integers(0, 1 << 30))
def test_regimes_of_columns_are_those_of_numbers(prompt: int, limit: int) -> None:
    assert _bit_length(np.array([prompt]))[0] == prompt.bit_length()
    assert _keys(np.array([prompt]), np.array([limit]))[0] == _key(prompt, limit)


def test_a_table_travels_as_bytes_and_a_damaged_one_is_refused() -> None:
    table = fit_hazards(drawn(800, 1)[0])
    assert table is not None
    again = HazardTable.from_bytes(table.to_bytes())
    asked = (table.cells(np.array([77]), np.array([LIMIT])), np.zeros(1), np.full(1, 1e4))
    assert again.curves.expected(*asked) == table.curves.expected(*asked)
    with pytest.raises(ValueError, match="hazards"):
        HazardTable.from_bytes(table.to_bytes()[:-40])
    rising = np.tile([0.1, 0.9], (again.curves._survival.shape[0], 1))
    with pytest.raises(ValueError, match="falls"):
        HazardTable(np.array([0.0, 1.0]), rising)
    with pytest.raises(ValueError, match="missing"):
        fitted(pack({"prompt_tokens": np.zeros(3)}))


def test_a_process_fits_what_is_fitted_in_place_and_ends_when_told() -> None:
    lives = pack({name: getattr(drawn(500, 1)[0], name) for name in Lives.__struct_fields__})
    fits = ProcessFits()
    started = fits.start(lives)
    assert started is not None
    assert fits.start(lives) is None
    assert started.result(300) == InlineFits().start(lives).result()
    assert started.result(0)
    damaged = fits.start(b"no lives")
    assert damaged is not None
    assert damaged.result(300) == b""
    fits.close()
    assert fits.start(lives) is None


def test_a_book_takes_trees_in_once_they_are_fitted() -> None:
    lives = drawn(2 * LEAST_FOR_TREES, 5)[0]
    facts = zip(lives.prompt_tokens.tolist(), lives.output_tokens.tolist(), strict=True)
    ends = [
        RequestEnd(n, 0, prompt, output, LIMIT, int(EndReason.STOPPED), 1.0)
        for n, (prompt, output) in enumerate(facts)
    ]
    book, nobody = LengthBook(InlineFits()), np.zeros(0, dtype=np.int64)
    for begin in (0, LEAST_FOR_TREES):
        book.ended(ends[begin : begin + LEAST_FOR_TREES])
        assert book.is_due
        book.learn(nobody, nobody, nobody, nobody)
        assert not book.is_due
    assert isinstance(book.model, HazardTable)
