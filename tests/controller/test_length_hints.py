"""Declared lengths: followed where they are true, left aside where they mislead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from controller_builders import snapshot_of, state_of
from governor_protos.messages import EndReason, RequestEnd, Rows
from hypothesis import given
from hypothesis import strategies as st
from prefill_builders import prefill_of, prefilling_hello

from controller_service.service.book import ServiceBook, Told
from controller_service.service.hints import LEAST_JUDGED, MOST_JUDGED
from controller_service.service.lengths import UNKNOWN_TOKENS, LengthBook
from controller_service.service.session import ServiceSession

LIMIT = 8192
NOBODY = np.zeros(0, dtype=np.int64)
Ints = Any
Say = Callable[[Ints, np.random.Generator], Ints]


def exactly(output: Ints, rng: np.random.Generator) -> Ints:
    return output


def rounded_up(output: Ints, rng: np.random.Generator) -> Ints:
    return 100 * -(-output // 100)


def twice(output: Ints, rng: np.random.Generator) -> Ints:
    return 2 * output


def anything(output: Ints, rng: np.random.Generator) -> Ints:
    return np.exp(rng.uniform(0, 9, len(output))).astype(np.int64) + 1


def nothing(output: Ints, rng: np.random.Generator) -> Ints:
    return np.zeros_like(output)


def lengths(count: int, seed: int) -> Ints:
    rng = np.random.default_rng(seed)
    return np.clip(300 * np.exp(rng.standard_normal(count)), 8, LIMIT - 1).astype(np.int64)


def serve(
    book: LengthBook, say: Say, count: int = 600, seed: int = 1, aborted: float = 0.0
) -> None:
    """``count`` requests end, one after the other; curves are drawn as they become due."""
    rng = np.random.default_rng(seed + 100)
    output = lengths(count, seed)
    hint = say(output, rng)
    for number in range(count):
        written, reason = int(output[number]), EndReason.STOPPED
        if rng.random() < aborted:
            written, reason = max(1, int(written * rng.random())), EndReason.ABORTED
        end = RequestEnd(
            number, 0, 1000, written, LIMIT, int(reason), 1.0, expected_tokens=int(hint[number])
        )
        book.ended([end])
        if book.is_due:
            book.learn(NOBODY, NOBODY, NOBODY, NOBODY)


def left(book: LengthBook, written: Ints, hint: Ints, limit: int = LIMIT) -> Any:
    return book.remaining(np.full(len(hint), 1000), written, np.full(len(hint), limit), hint)


def error(book: LengthBook, say: Say, done: float, seed: int = 9) -> float:
    """Median relative error of the total, of requests that have written this share of it."""
    output = lengths(500, seed)
    written = (done * output).astype(np.int64)
    total = written + left(book, written, say(output, np.random.default_rng(seed)))
    return float(np.median(np.abs(total - output) / output))


@pytest.mark.parametrize("done", [0.0, 0.5, 0.9])
def test_exact_hints_are_followed(done: float) -> None:
    book = LengthBook()
    serve(book, exactly)
    assert book.hints.are_trusted
    assert error(book, exactly, done) < 0.1
    assert error(book, nothing, 0.0) > 0.3


@pytest.mark.parametrize(("say", "most"), [(rounded_up, 0.2), (twice, 0.05)])
def test_what_clients_make_of_their_lengths_is_learnt(say: Say, most: float) -> None:
    book = LengthBook()
    serve(book, say)
    assert book.hints.are_trusted
    assert error(book, say, 0.0) < most


def test_hints_count_from_the_first_request() -> None:
    assert error(LengthBook(), exactly, 0.0) < 0.1


def test_many_that_were_aborted_do_not_make_hints_look_too_long() -> None:
    book = LengthBook()
    serve(book, exactly, aborted=0.6)
    assert book.hints.are_trusted
    assert error(book, exactly, 0.0) < 0.1


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_hints_that_mislead_are_as_if_nobody_had_said_anything(seed: int) -> None:
    told, silent = LengthBook(), LengthBook()
    serve(told, anything, seed=seed)
    serve(silent, nothing, seed=seed)
    assert not told.hints.are_trusted
    written = np.arange(0, 400, 10)
    lies = np.geomspace(1, 9000, len(written)).astype(np.int64)
    assert left(told, written, lies).tolist() == left(silent, written, 0 * lies).tolist()


def test_clients_that_mend_their_ways_are_believed_again_and_the_other_way_round() -> None:
    book = LengthBook()
    serve(book, anything)
    serve(book, exactly, count=3 * MOST_JUDGED)
    assert book.hints.are_trusted
    serve(book, anything, count=3 * MOST_JUDGED)
    assert not book.hints.are_trusted


def test_clients_are_judged_once_enough_have_ended() -> None:
    book = LengthBook()
    serve(book, lambda output, rng: np.full_like(output, 9000), count=LEAST_JUDGED - 1)
    assert book.hints.are_trusted
    serve(book, lambda output, rng: 10_000_000 // output, count=200)
    assert not book.hints.are_trusted


def test_silence_says_nothing_of_hints() -> None:
    book = LengthBook()
    serve(book, nothing)
    before = left(book, np.zeros(1, np.int64), np.array([700]))
    assert before[0] == pytest.approx(700, rel=0.1)


def test_who_runs_beyond_its_hint_counts_though_nobody_has_ended_there() -> None:
    book = LengthBook()
    many = np.full(200, 1)
    serve(book, nothing, count=50)
    book.learn(1000 * many, 300 * many, LIMIT * many, 100 * many)
    assert left(book, np.zeros(1, np.int64), np.array([100]))[0] > 300


@given(
    st.integers(0, 1 << 20),
    st.integers(0, 1 << 14),
    st.integers(0, 1 << 14),
    st.sampled_from([0.0, 0.5, 0.9]),
)
def test_the_limit_holds_whatever_the_hint(
    hint: int, written: int, limit: int, quantile: float
) -> None:
    columns = [np.array([value]) for value in (1000, written, limit, hint)]
    (found,) = LengthBook().remaining(*columns, quantile)
    assert 1.0 <= found <= max(limit - written, 1)


def told_of(rows: list[dict[str, float]], waiting: list[dict[str, float]]) -> Told:
    return Told.of(state_of(rows), prefill_of(waiting))


def test_a_hint_goes_with_its_request_from_the_queue_to_the_batch() -> None:
    book = ServiceBook()
    hinted = {"request_id": 7, "expected_tokens": 120}
    for rows, waiting in (([], [hinted, {}]), ([hinted, {}], []), ([{}], [hinted])):
        book.update(told_of(rows, waiting), speculates=False)
        assert book.of(np.array([7], dtype=np.uint32))["hint"].tolist() == [120]
        assert sum(book.present["hint"].tolist()) == 120


def test_policies_are_given_what_hints_say_and_ends_teach() -> None:
    session = ServiceSession(prefilling_hello())
    rows = [{"request_id": 1}, {"request_id": 2, "expected_tokens": 60, "output_tokens": 10}]
    waiting = [{"request_id": 3, "expected_tokens": 90}, {"request_id": 4, "max_new_tokens": 900}]
    queue = prefill_of(waiting)
    state = session.state(state_of(rows), queue)
    assert state.rows.remaining_tokens[0] == UNKNOWN_TOKENS + 10
    assert state.rows.remaining_tokens[1] == pytest.approx(50, rel=0.15)
    assert state.queue.remaining_tokens.tolist() == [pytest.approx(90, rel=0.1), UNKNOWN_TOKENS]
    ends = [
        RequestEnd(10 + n, 0, 1000, 270, LIMIT, int(EndReason.STOPPED), 1.0, expected_tokens=90)
        for n in range(200)
    ]
    session.settle(msgspec.structs.replace(snapshot_of(Rows(), 1), ended=ends))
    again = session.state(state_of(rows), queue)
    assert again.queue.remaining_tokens[0] == pytest.approx(200, abs=1)  # its limit
