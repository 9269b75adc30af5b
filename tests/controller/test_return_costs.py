"""What it costs to let a row yield, by what memory there is when its turn comes again."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from controller_builders import KnownPredictor, state_of
from hypothesis import given
from hypothesis import strategies as st
from prefill_builders import prefill_of

from controller_service.prefill.room import room_tokens
from controller_service.service.costs import RETRACT_S, return_s, taken_tokens
from controller_service.service.state import Service
from controller_service.state import StepState

LINE = KnownPredictor(0.02, 1e-5, 1e-9, 1e-4)


def state_with_room(contexts: list[int], room: float) -> StepState:
    """Rows of these contexts, and so much memory that is free and not spoken for."""
    state = state_of([{"context_tokens": context} for context in contexts])
    bare = msgspec.structs.replace(state, kv_total_tokens=0)
    return msgspec.structs.replace(bare, kv_total_tokens=round(room - room_tokens(bare)))


def step_s(context: int, tokens: int) -> float:
    return float(LINE.predict(1.0, float(context), float(tokens)))


def waiting_service(remaining: list[float]) -> Service:
    count = len(remaining)
    zeros = np.zeros(count)
    tokens = np.array(remaining)
    retractions = zeros.astype(np.int64)
    return Service(zeros, zeros, tokens, zeros + 1.0, zeros, retractions, lambda _: tokens)


def test_those_that_are_shorter_take_their_prompt_and_what_they_will_write() -> None:
    queue = prefill_of([{"missing_tokens": 100}, {"missing_tokens": 7}, {"missing_tokens": 1000}])
    service = waiting_service([50.0, 20.0, 400.0])
    rows_s = np.array([0.5, 1.0, 1.5, 9.0, 2.5])
    taken = taken_tokens(queue, service, np.array([2.0, 1.0, 9.0]), rows_s)
    assert taken.tolist() == [0.0, 0.0, 27.0, 177.0, 177.0]


def test_with_ample_memory_only_one_token_is_computed() -> None:
    state = state_with_room([500, 60_000], room=10_000)
    found = return_s(state, LINE, np.array([0.0, 10_000.0]))
    assert found == pytest.approx([RETRACT_S + step_s(500, 1), RETRACT_S + step_s(60_000, 1)])


def test_where_others_take_more_than_is_free_what_was_written_goes_first_and_then_all() -> None:
    state = state_with_room([500, 500, 500, 500], room=1000)
    assert state.output_tokens.tolist() == [10] * 4
    found = return_s(state, LINE, np.array([1000.0, 1001.0, 1011.0, 90_000.0]))
    assert found == pytest.approx([RETRACT_S + step_s(500, lost) for lost in (1, 10, 500, 500)])


@given(
    st.lists(
        st.tuples(st.integers(0, 9000), st.floats(0, 50_000), st.floats(0, 50_000)), max_size=6
    ),
    st.integers(-20_000, 50_000),
)
def test_more_demand_never_makes_it_cheaper(
    rows: list[tuple[int, float, float]], room: int
) -> None:
    contexts = [row[0] for row in rows]
    state = state_with_room(contexts, room)
    less, more = (
        return_s(state, LINE, np.array([choose(row[1:]) for row in rows], dtype=np.float64))
        for choose in (min, max)
    )
    assert less.shape == (len(rows),)
    assert (less <= more).all()
    for context, least, most in zip(contexts, less, more, strict=True):
        assert RETRACT_S + step_s(context, 1) <= least + 1e-12
        assert most <= RETRACT_S + step_s(context, max(context, 1)) + 1e-12
