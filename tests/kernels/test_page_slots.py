"""Rows fill their last page, then take new pages in order; no slot is given twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from governor_kernels.page_slots import extended_slots  # noqa: E402

PAGES = 64
Row = tuple[int, int]


def walked(rows: list[Row], last_slots: list[int], free: list[int], page_size: int) -> list[int]:
    """The same, token by token."""
    free, slots = list(free), []
    for (start, end), last in zip(rows, last_slots, strict=True):
        slot = last
        for token in range(start, end):
            slot = free.pop(0) * page_size if token % page_size == 0 else slot + 1
            slots.append(slot)
    return slots


rows_of_tokens = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda pair: (pair[0], sum(pair))),
    max_size=6,
)


@given(rows_of_tokens, st.sampled_from([1, 2, 4, 16]), st.randoms(use_true_random=False))
def test_slots_are_those_of_a_walk_along_the_tokens(
    rows: list[Row], page_size: int, rng: st.randoms
) -> None:
    free = list(range(1, 8 * PAGES))
    rng.shuffle(free)
    own = [free.pop() for _ in rows]
    last = [
        page * page_size + (start - 1) % page_size
        for page, (start, _) in zip(own, rows, strict=True)
    ]
    found = extended_slots(
        torch.tensor([start for start, _ in rows], dtype=torch.int64),
        torch.tensor([end for _, end in rows], dtype=torch.int64),
        torch.tensor(last, dtype=torch.int64),
        torch.tensor(free),
        page_size,
    )
    assert found.dtype == torch.int64
    assert found.tolist() == walked(rows, last, free, page_size)
    assert len(set(found.tolist())) == len(found)


def test_slots_that_are_missing_lie_in_the_page_that_is_nobodys() -> None:
    ends = torch.tensor([5, 4])
    found = extended_slots(torch.tensor([0, 0]), ends, torch.tensor([-1, -1]), torch.tensor([7]), 4)
    assert found.tolist() == [28, 29, 30, 31, 0, 0, 1, 2, 3]
