"""The share of the places that is kept for whoever has come off badly."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from controller_service.service.lateness import late, let_in

latencies = st.lists(st.floats(0.001, 1e4), max_size=20)


def test_late_is_who_takes_so_many_times_the_mean_of_all() -> None:
    waiting, running = late(np.array([1.0, 30.0]), np.array([2.0, 7.0]), 2.0)
    assert waiting.tolist() == [False, True]
    assert running.tolist() == [False, False]


def test_the_oldest_of_the_late_are_let_in_while_late_ones_have_places_left() -> None:
    is_late = np.array([True, False, True, True])
    age_s = np.array([5.0, 99.0, 8.0, 7.0])
    assert let_in(is_late, 0, age_s, 2.0).tolist() == [False, False, True, True]
    assert let_in(is_late, 1, age_s, 2.0).tolist() == [False, False, True, False]
    assert let_in(is_late, 2, age_s, 2.0).tolist() == [False] * 4
    assert let_in(is_late, 0, age_s, 0.0).tolist() == [False] * 4


@given(latencies.filter(len), latencies, st.floats(1.0, 10.0), st.floats(0.0, 30.0))
def test_late_ones_never_get_more_places_than_are_kept(
    waits: list[float], runs: list[float], factor: float, places: float
) -> None:
    queue_s, rows_s = np.array(waits), np.array(runs)
    waiting, running = late(queue_s, rows_s, factor)
    found = let_in(waiting, int(running.sum()), queue_s, places)
    assert not (found & ~waiting).any()
    assert found.sum() <= max(np.ceil(places) - running.sum(), 0)
    if found.any():
        assert queue_s[found].min() >= queue_s[waiting & ~found].max(initial=0.0)
