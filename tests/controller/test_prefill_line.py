"""Who is prefilled when: deadlines, those that cannot be met, and nobody forgotten."""

from __future__ import annotations

import itertools

import msgspec
import numpy as np
import pytest
from governor_protos.messages import Queue
from hypothesis import given
from hypothesis import strategies as st
from prefill_builders import NEVER, prefill_of, prefilling_hello, queue_of

from controller_service.columns import BadColumn
from controller_service.prefill.line import Line, line_up, pages
from controller_service.prefill.queue import PrefillState

TOKEN_S = 1e-4
START_S = 0.01

JOBS = st.lists(
    st.tuples(st.integers(1, 8000), st.floats(0.05, 3.0), st.floats(0.0, 4.0)),
    min_size=1,
    max_size=7,
)


def lined(jobs: list[tuple[int, float, float]], **facts: int) -> Line:
    waiting = [{"missing_tokens": m, "ttft_slo_s": t, "age_s": a} for m, t, a in jobs]
    return in_line(prefill_of(waiting, **facts))


def in_line(queue: PrefillState, fitting: list[bool] | None = None) -> Line:
    mask = np.ones(queue.waiting, dtype=np.bool_) if fitting is None else np.array(fitting)
    return line_up(queue, mask, TOKEN_S, START_S, 0.0, 1.0)


def in_time(jobs: list[tuple[int, float, float]], order: tuple[int, ...]) -> bool:
    total = 0.0
    for index in order:
        missing, target, age = jobs[index]
        total += missing
        if total * TOKEN_S + START_S > target - age:
            return False
    return True


@given(JOBS)
def test_the_fewest_are_late(jobs: list[tuple[int, float, float]]) -> None:
    """Against every subset, each in the order of its deadlines."""
    jobs = [(m, float(np.float32(t)), float(np.float32(a))) for m, t, a in jobs]
    line = lined(jobs)
    kept = len(jobs) - line.given_up
    by_due = sorted(range(len(jobs)), key=lambda one: jobs[one][1] - jobs[one][2])
    best = max(
        size
        for size in range(len(jobs) + 1)
        if any(in_time(jobs, some) for some in itertools.combinations(by_due, size))
    )
    assert kept == best
    assert in_time(jobs, tuple(line.order[:kept].tolist()))


@given(JOBS)
def test_everybody_is_in_line_once(jobs: list[tuple[int, float, float]]) -> None:
    line = lined(jobs)
    assert sorted(line.order.tolist()) == list(range(len(jobs)))
    assert line.tokens == sum(missing for missing, _, _ in jobs)
    assert np.all(np.diff(line.work_tokens) > 0)


@given(JOBS)
def test_who_is_given_up_is_due_again_later(jobs: list[tuple[int, float, float]]) -> None:
    line = lined(jobs)
    for index, due_s in zip(line.order.tolist(), line.due_s.tolist(), strict=True):
        _, target, age = jobs[index]
        own = target - age
        assert due_s >= own - 1e-3
        if index in line.order[len(jobs) - line.given_up :]:
            assert due_s > 0.0


def test_a_long_prompt_is_given_up_for_two_short_ones() -> None:
    """By deadlines alone the long one would go first and make all three late."""
    line = lined([(9000, 0.95, 0.0), (500, 0.99, 0.0), (600, 1.0, 0.0)])
    assert line.order.tolist() == [1, 2, 0]
    assert line.given_up == 1


def test_the_engines_own_order_is_kept_while_it_is_in_good_time() -> None:
    assert lined([(100, 3.0, 0.0), (100, 1.0, 0.0), (100, 2.0, 0.0)]).order.tolist() == [0, 1, 2]
    assert lined([(8500, 3.0, 0.0), (100, 1.0, 0.0)]).order.tolist() == [1, 0]


def test_who_was_promised_nothing_is_ordered_by_the_usual_target() -> None:
    line = lined([(900, NEVER, 0.5), (900, 2.0, 0.0), (900, 0.3, 0.0)])
    assert line.order.tolist() == [2, 0, 1]


def test_budgets_count_whole_pages() -> None:
    queue = queue_of([{"missing_tokens": m} for m in (1, 64, 65, 0)])
    small, large = (
        PrefillState.from_queue(queue, msgspec.structs.replace(prefilling_hello(), page_size=size))
        for size in (1, 64)
    )
    assert pages(small).tolist() == [1, 64, 65, 1]
    assert pages(large).tolist() == [64, 64, 128, 64]


def test_whom_there_is_no_room_for_comes_last_and_is_not_counted() -> None:
    queue = prefill_of([{"missing_tokens": m, "age_s": 0.3} for m in (5000, 200, 100)])
    line = in_line(queue, [False, True, True])
    assert line.order.tolist()[-1] == 0
    assert (line.in_time, line.given_up, line.outside) == (2, 0, 1)
    assert line.tokens == 300


def test_hits_of_the_prefix_cache_are_done() -> None:
    """The one with the longer prompt misses less, and is the one that can be in time."""
    waiting = [
        {"prompt_tokens": 9000, "missing_tokens": 100, "ttft_slo_s": 0.5, "age_s": 0.4},
        {"prompt_tokens": 2000, "missing_tokens": 2000, "ttft_slo_s": 0.5, "age_s": 0.4},
    ]
    line = in_line(prefill_of(waiting))
    assert line.order.tolist() == [0, 1]
    assert line.given_up == 1


def test_a_negative_number_of_missing_tokens_is_refused() -> None:
    with pytest.raises(BadColumn, match="missing_tokens"):
        prefill_of([{"missing_tokens": -1}])


def test_an_empty_queue() -> None:
    line = in_line(PrefillState.from_queue(Queue(), prefilling_hello()))
    assert line.tokens == 0
    assert not line.order.size
