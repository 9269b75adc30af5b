"""Attained service, acceptance and pace over a series of snapshots."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from controller_builders import batch, snapshot_of, state_of
from governor_protos.messages import EndReason, RequestEnd, RowFlag, Snapshot
from hypothesis import given, settings
from hypothesis import strategies as st
from prefill_builders import STARTED, prefill_of, prefilling_hello

from controller_service.service.book import MOST_ABSENT, WINDOW, ServiceBook, Told
from controller_service.service.lengths import UNKNOWN_TOKENS
from controller_service.service.session import ServiceSession
from controller_service.service.state import ServiceState
from controller_service.service.times import levels, remaining_s
from controller_service.state import StepState

Facts = list[dict[str, Any]]


def seen(book: ServiceBook, rows: Facts, waiting: Facts, *, speculates: bool = False) -> None:
    book.update(Told.of(state_of(rows), prefill_of(waiting)), speculates=speculates)


def fact(book: ServiceBook, request: int, name: str) -> float:
    return float(book.of(np.array([request], dtype=np.uint32))[name][0])


def test_service_is_the_time_in_the_batch_over_all_turns() -> None:
    book = ServiceBook()
    seen(book, [], [{"request_id": 7, "age_s": 1.0}])
    seen(book, [{"request_id": 7, "age_s": 2.0, "flags": int(RowFlag.UNBORN)}], [])
    seen(book, [{"request_id": 7, "age_s": 2.5}], [])
    seen(book, [{"request_id": 7, "age_s": 4.0}], [])
    assert fact(book, 7, "attained_s") == 1.5
    seen(book, [{"request_id": 7, "age_s": 5.0, "parked_steps": 3}], [])
    seen(book, [{"request_id": 7, "age_s": 8.0}], [])
    assert fact(book, 7, "attained_s") == 2.5
    seen(book, [], [{"request_id": 7, "age_s": 9.0, "output_tokens": 12}])
    seen(book, [], [{"request_id": 7, "age_s": 20.0, "output_tokens": 12}])
    assert fact(book, 7, "attained_s") == 3.5
    assert fact(book, 7, "retractions") == 1


def test_a_round_takes_what_it_has_taken_of_late_prefills_of_others_included() -> None:
    book = ServiceBook()
    assert book.round_s == 0.0
    row = {"request_id": 7, "output_tokens": 1, "draft_tokens": 0, "accepted_tokens": 0}
    seen(book, [{**row, "age_s": 1.0}], [])
    seen(book, [{**row, "age_s": 1.5}], [])
    assert book.round_s == 0.0
    given = {"output_tokens": 9, "draft_tokens": 9, "accepted_tokens": 6}
    seen(book, [{**row, "age_s": 2.0, **given}], [])
    assert book.round_s == pytest.approx(0.5, rel=0.01)
    seen(book, [], [{"request_id": 7, "age_s": 9.0, "output_tokens": 9, "accepted_tokens": 6}])
    assert book.round_s == pytest.approx(0.5, rel=0.01)


def test_a_prompt_in_chunks_is_no_retraction() -> None:
    book = ServiceBook()
    unborn = {"request_id": 7, "flags": int(RowFlag.UNBORN)}
    for age in (1.0, 2.0):
        started = {"request_id": 7, "flags": STARTED, "age_s": age}
        seen(book, [{**unborn, "age_s": age}], [started])
    seen(book, [{"request_id": 7, "age_s": 3.0}], [])
    assert fact(book, 7, "retractions") == 0
    assert fact(book, 7, "attained_s") == 0.0


def test_acceptance_has_settled_once_it_varies_little_over_a_window() -> None:
    book = ServiceBook()
    drafted = accepted = output = 0
    for step in range(3 * WINDOW):
        drafted, accepted, output = drafted + 4, accepted + step % 2 * 4, output + 2
        row = {"request_id": 3, "output_tokens": output, "age_s": float(step)}
        facts = {**row, "draft_tokens": drafted, "accepted_tokens": accepted}
        seen(book, [facts], [], speculates=True)
        if step < WINDOW - 1:
            assert fact(book, 3, "spread") == np.inf
    assert 0.0 < fact(book, 3, "spread") < 0.05


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(1, 12), st.booleans()), max_size=8), max_size=12))
def test_any_coming_and_going_keeps_one_record_each(steps: list[list[tuple[int, bool]]]) -> None:
    book = ServiceBook()
    for number, step in enumerate(steps):
        rows = [{"request_id": n, "age_s": float(number)} for n in {n for n, runs in step if runs}]
        queue = {n for n, runs in step if not runs}
        seen(book, rows, [{"request_id": n, "age_s": float(number)} for n in queue])
        for request in {n for n, _ in step}:
            assert 0.0 <= fact(book, request, "attained_s") <= number
        ids = book.present["id"]
        assert sorted(ids.tolist()) == sorted({n for n, _ in step})
    for _ in range(MOST_ABSENT + 1):
        seen(book, [], [])
    assert not len(book)


def state_after(session: ServiceSession, rows: Facts, waiting: Facts) -> ServiceState:
    queue = prefill_of(waiting)
    state: StepState = msgspec.structs.replace(state_of(rows), prefill=queue)
    return session.state(state, queue)


def test_everybody_gets_their_own_columns_and_the_paces_of_their_drafts() -> None:
    hello = msgspec.structs.replace(prefilling_hello(), speculative_algorithm="EAGLE")
    session = ServiceSession(hello)
    quick = {"request_id": 9, "output_tokens": 401, "draft_tokens": 300, "accepted_tokens": 300}
    slow = {"request_id": 4, "output_tokens": 101, "draft_tokens": 300, "accepted_tokens": 0}
    waiting = [{"request_id": 5, "max_new_tokens": 40}, {"request_id": 2, "max_new_tokens": 900}]
    state = state_after(session, [quick, slow], waiting)
    assert state.rows.tokens_per_round[0] > 3.0
    assert state.rows.tokens_per_round[1] < 1.3
    assert 1.5 < state.queue.tokens_per_round[0] < 3.0
    assert state.queue.remaining_tokens.tolist() == [40.0, UNKNOWN_TOKENS]
    assert state.rows.remaining_tokens.tolist() == [599.0, UNKNOWN_TOKENS + 101]
    assert state.most_rows == hello.max_running_requests
    assert not state.can_retract


def test_without_speculation_everybody_is_perceptible_and_a_round_is_a_token() -> None:
    state = state_after(ServiceSession(prefilling_hello()), [{}], [{}])
    assert state.queue.spread.tolist() == [0.0]
    assert state.queue.tokens_per_round.tolist() == state.rows.tokens_per_round.tolist() == [1.0]


def test_remaining_time_is_the_papers() -> None:
    state = state_after(ServiceSession(prefilling_hello()), [], [{"max_new_tokens": 60}])
    service = msgspec.structs.replace(state.queue, tokens_per_round=np.array([2.5]))
    llm_s, ssm_s, drafts = 0.02, 0.001, 3
    length, accepted = 60.0, 0.5  # n A + 1 = 3 * 0.5 + 1
    published = (drafts * length * ssm_s + length * llm_s) / (drafts * accepted + 1.0)
    assert remaining_s(service, llm_s + drafts * ssm_s) == pytest.approx([published])


def test_quanta_double_from_queue_to_queue() -> None:
    seconds = np.array([0.0, 0.9, 1.0, 1.1, 2.0, 3.9, 4.1, 1e9])
    assert levels(seconds, 1.0, 4).tolist() == [0, 0, 0, 1, 1, 2, 3, 3]


def test_lengths_are_learnt_as_requests_end_and_runners_count_as_longer() -> None:
    session = ServiceSession(prefilling_hello())
    book = session.lengths
    ends = [
        RequestEnd(n, 0, 1000, 20 + n % 7, 4096, int(EndReason.STOPPED), 1.0) for n in range(60)
    ]
    book.ended(ends)
    nobody = np.zeros(0, dtype=np.int64)
    book.learn(nobody, nobody, nobody, nobody)
    one = [np.array([value]) for value in (1000, 0, 4096, 0)]
    alone = float(book.remaining(*one)[0])
    assert 20 <= alone <= 27
    runners = [np.full(60, value) for value in (1000, 800, 4096, 0)]
    book.learn(*runners)
    assert float(book.remaining(*one)[0]) > 300.0
    assert float(book.remaining(one[0], np.array([4090]), *one[2:])[0]) == 6.0


def test_nothing_is_learnt_once_no_policy_asks_any_more() -> None:
    """After a switch of the policy, who was told of last stays as it was."""
    session = ServiceSession(prefilling_hello())
    state_after(session, [{"request_id": 1}], [])
    session.settle(ended(0))
    assert session.lengths.model is not None
    first = session.lengths.model
    session.settle(ended(100))
    assert session.lengths.is_due
    assert session.lengths.model is first
    state_after(session, [{"request_id": 2}], [])
    session.settle(ended(200))
    assert session.lengths.model is not first


def ended(first: int) -> Snapshot:
    ends = [
        RequestEnd(first + n, 0, 1000, 20 + n % 7, 4096, int(EndReason.STOPPED), 1.0)
        for n in range(60)
    ]
    return msgspec.structs.replace(snapshot_of(batch(1, 1), 1), ended=ends)
