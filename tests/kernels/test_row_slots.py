"""Slots of stretches of tokens, and what an accepted path leaves of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from governor_kernels.accepted_path import accepted_slots, bonus_tokens  # noqa: E402
from governor_kernels.row_slots import gather_row_slots, scatter_row_slots  # noqa: E402

REQUESTS, CONTEXT = 5, 12


@st.composite
def stretches(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """Request, first token and token after the last, of rows of different requests."""
    rows = draw(st.lists(st.integers(0, REQUESTS - 1), unique=True, max_size=REQUESTS))
    bounds = st.lists(st.integers(0, CONTEXT), min_size=2, max_size=2)
    return [(row, *sorted(draw(bounds))) for row in rows]


def columns(rows: list[tuple[int, int, int]], dtype: object) -> list[object]:
    return [torch.tensor([row[at] for row in rows], dtype=dtype) for at in range(3)]


@given(stretches(), st.sampled_from([torch.int32, torch.int64]))
def test_slots_come_row_by_row(rows: list[tuple[int, int, int]], dtype: object) -> None:
    table = torch.randperm(REQUESTS * CONTEXT).view(REQUESTS, CONTEXT).to(torch.int32)
    slots = gather_row_slots(table, *columns(rows, dtype))
    assert slots.dtype == torch.int64
    assert slots.tolist() == [int(table[row, at]) for row, lo, hi in rows for at in range(lo, hi)]


@given(stretches(), st.integers(0, 3))
def test_what_is_written_is_read_and_the_rest_stays(
    rows: list[tuple[int, int, int]], surplus: int
) -> None:
    table = torch.full((REQUESTS, CONTEXT), -1, dtype=torch.int32)
    count = sum(hi - lo for _, lo, hi in rows)
    slots = torch.arange(100, 100 + count + surplus)
    where = columns(rows, torch.int64)
    scatter_row_slots(table, *where, slots)
    assert gather_row_slots(table, *where).tolist() == slots[:count].tolist()
    assert int((table >= 0).sum()) == count


@given(st.lists(st.lists(st.integers(-1, 19), min_size=3, max_size=3), max_size=4))
def test_accepted_slots_close_the_gaps(paths: list[list[int]]) -> None:
    slots = torch.arange(50, 70)
    index = torch.tensor(paths, dtype=torch.int32).view(-1, 3)
    wanted = [50 + node for path in paths for node in path if node >= 0]
    assert accepted_slots(index, slots).tolist() == wanted


@given(st.lists(st.integers(1, 4), max_size=5))
def test_the_bonus_token_is_the_last_of_a_row(lengths: list[int]) -> None:
    tokens = torch.arange(len(lengths) * 4, dtype=torch.int32).view(-1, 4)
    wanted = [4 * row + length - 1 for row, length in enumerate(lengths)]
    found = bonus_tokens(tokens, torch.tensor(lengths, dtype=torch.int32))
    assert found.tolist() == wanted
