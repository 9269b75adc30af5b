"""Prefill orders and mixed chunks: what a step takes in, and that nobody is lost over it."""

from __future__ import annotations

import random

import pytest
from governor_sim.batching import Batcher
from hypothesis import given, settings
from hypothesis import strategies as st
from sim_builders import row
from sim_turns import batcher, turn

from sglang_patch.apply.prefill import STOCK, PrefillOrder

HOLD = PrefillOrder(0)
MIXED = pytest.mark.parametrize("mixed", [False, True])


def step(engine: Batcher, order: PrefillOrder = STOCK) -> dict[int, int]:
    """One step: the prompt tokens of each request that prefilled, in their order."""
    batch = turn(engine, order)
    if batch is None:
        return {}
    indices = [item.request.index for item in batch.rows]
    return dict(zip(indices, batch.tokens, strict=True))


def with_chunk(chunk: int = 100, *, mixed: bool = False) -> Batcher:
    """Request 0 runs, request 1 is 300 tokens from the end of its prefill, 2 to 4 wait."""
    engine = batcher(chunk=chunk, mixed=mixed)
    engine.waiting.append(row(0, 10, 50))
    turn(engine)
    engine.waiting.append(row(1, 300 + chunk - mixed, 5))
    turn(engine)
    assert engine.reserved_tokens == 300
    engine.waiting.extend([row(2, 40), row(3, 50), row(4, 30)])
    return engine


@MIXED
def test_a_budget_is_what_a_step_takes_in(mixed: bool) -> None:
    engine = with_chunk(mixed=mixed)
    assert step(engine, PrefillOrder(60)) == {1: 60}
    assert step(engine, PrefillOrder(5000)) == {1: 100 - mixed}
    assert step(engine, PrefillOrder(90)) == {1: 90}
    assert step(engine, PrefillOrder(99)) == {1: 50 + mixed, 2: 40, 3: 9 - mixed}


@MIXED
def test_one_request_at_a_time_is_cut(mixed: bool) -> None:
    engine = batcher(mixed=mixed)
    engine.waiting.extend([row(0, 30), row(1, 30), row(2, 30)])
    assert step(engine, PrefillOrder(40)) == {0: 30, 1: 10}
    assert step(engine, PrefillOrder(10)) == {1: 10}
    assert step(engine, PrefillOrder(15)) == {1: 10, 2: 5}


@MIXED
def test_named_requests_go_first_and_the_rest_as_it_came(mixed: bool) -> None:
    engine = batcher(mixed=mixed)
    engine.waiting.extend([row(index, 10) for index in range(6)])
    order = PrefillOrder(25, ("4", "gone", "2"))
    assert step(engine, order) == {4: 10, 2: 10, 0: 5}
    assert step(engine, PrefillOrder(20)) == {0: 5, 1: 10, 3: 5}
    assert [item.rid for item in engine.waiting] == ["5"]


def test_named_requests_follow_a_chunk_that_is_not_named() -> None:
    engine = with_chunk()
    step(engine, PrefillOrder(80))
    step(engine)
    step(engine)
    assert step(engine, PrefillOrder(60, ("4",))) == {1: 20, 4: 30, 2: 10}


@MIXED
def test_whole_prompts_pass_a_chunk_that_is_named_after_them(mixed: bool) -> None:
    engine = with_chunk(mixed=mixed)
    order = PrefillOrder(80, ("4", "3", "2", "1"))
    assert step(engine, order) == {4: 30, 3: 50}
    assert engine.reserved_tokens == 300
    assert step(engine, PrefillOrder(20, ("2", "1"))) == {1: 20}, "who does not fit is not cut"
    assert step(engine, PrefillOrder(20, ("1", "2"))) == {1: 20}
    assert step(engine, PrefillOrder(-1, ("2", "1"))) == {2: 40}


def test_nobody_passes_into_the_memory_that_the_chunk_needs() -> None:
    engine = batcher(kv_tokens=500, chunk=100)
    engine.waiting.extend([row(0, 400, 20), row(1, 80, 10)])
    assert step(engine) == {0: 100}
    assert step(engine, PrefillOrder(100, ("1", "0"))) == {0: 100}


def test_nobody_passes_a_chunk_into_the_last_place_of_the_batch() -> None:
    engine = batcher(chunk=50, running=2)
    engine.waiting.extend([row(0, 120), row(1, 5), row(2, 5)])
    step(engine)
    assert step(engine, PrefillOrder(50, ("1", "2", "0"))) == {1: 5}
    assert step(engine, PrefillOrder(50, ("2", "0"))) == {0: 50}


@MIXED
def test_holding_lets_rows_decode_and_never_idles(mixed: bool) -> None:
    engine = with_chunk(mixed=mixed)
    runner = engine.running[0]
    before = runner.output_tokens
    assert step(engine, HOLD) == {}
    assert runner.output_tokens == before + 1
    while not runner.finished:
        assert step(engine, HOLD) == {}
    assert step(engine, HOLD) == {1: 100}, "nobody decodes: as without an order"


def test_a_chunk_is_not_held_while_others_decode_into_its_memory() -> None:
    # SGLang aborts a request that memory is short of once there is nobody left to retract.
    engine = batcher(kv_tokens=142, chunk=20)
    engine.waiting.append(row(0, 10, 100))
    for _ in range(50):
        step(engine)
    engine.waiting.append(row(1, 45, 1))
    assert step(engine) == {1: 20}
    held = 0
    while engine.chunked is not None:
        held += not step(engine, HOLD)
        assert engine.kv.used_tokens + engine.reserved_tokens <= 142
    assert held > 30
    assert not engine.running[0].finished


@pytest.mark.parametrize(
    ("kv_tokens", "chunk", "decoded"),
    [(132, 2, 60), (141, 3, 80)],  # found by search: nothing is left, and less than a chunk
)
def test_rows_that_decode_beside_a_mixed_chunk_do_not_take_its_memory(
    kv_tokens: int, chunk: int, decoded: int
) -> None:
    # A real engine runs out of memory: nothing is checked for rows that decode beside a chunk.
    engine = batcher(kv_tokens=kv_tokens, chunk=chunk, mixed=True)
    rows = [row(0, 5, 100), row(1, 40, 1)]
    engine.waiting.append(rows[0])
    for _ in range(decoded):
        step(engine)
    engine.waiting.append(rows[1])
    while not engine.idle:
        step(engine)
        assert engine.kv.used_tokens <= kv_tokens
    assert engine.retractions == 1
    assert [item.output_tokens for item in rows] == [100, 1]


def test_every_running_row_decodes_beside_a_mixed_chunk() -> None:
    engine = batcher(chunk=100, mixed=True)
    engine.waiting.extend([row(0, 10, 50), row(1, 20, 50)])
    step(engine)
    engine.waiting.append(row(2, 250))
    runners = list(engine.running)
    used = engine.kv.used_tokens
    batch = engine.next_prefill()
    assert batch is not None
    assert (batch.tokens, batch.decoding) == ([98], runners)
    assert engine.running == []
    assert engine.kv.used_tokens == used + 98 + 2


def test_without_an_order_rows_that_decode_leave_a_mixed_chunk_less() -> None:
    engine = batcher(chunk=4, mixed=True)
    for index in range(4):
        engine.waiting.append(row(index, 1, 9))
        step(engine)
    engine.waiting.append(row(4, 10))
    assert step(engine) == {}, "four rows decode, and nothing is left of the chunk"
    assert step(engine, PrefillOrder(4)) == {4: 1}
    assert step(engine) == {4: 1}, "what has begun goes on"


@MIXED
@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 120)), min_size=1, max_size=12),
    spare=st.integers(3, 60),
    running=st.integers(1, 12),
    chunk=st.integers(1, 50),
    seed=st.integers(0, 1 << 16),
    blocks=st.booleans(),
)
def test_everybody_finishes_whatever_is_ordered(
    mixed: bool,
    sizes: list[tuple[int, int]],
    spare: int,
    running: int,
    chunk: int,
    seed: int,
    blocks: bool,
) -> None:
    rng = random.Random(seed)
    engine = batcher(max(map(sum, sizes)) + spare, running, chunk, mixed=mixed)
    prefix = (1, 2) if blocks else ()
    rows = [row(index, *size, prefix, 8) for index, size in enumerate(sizes)]
    arriving = list(rows)
    for _ in range(20_000):
        engine.waiting.extend(arriving[:2])
        del arriving[:2]
        if engine.idle and not arriving:
            break
        tokens = rng.choice([-1, 0, 0, rng.randint(1, 60)])
        first = tuple(item.rid for item in rng.sample(rows, rng.randint(0, len(rows))))
        could_decode = any(not item.finished for item in engine.running)
        had_chunk = engine.chunked is not None
        batch = turn(engine, PrefillOrder(tokens, first))
        if batch is None:
            assert could_decode or not (engine.waiting or engine.chunked)
        else:
            assert all(number > 0 for number in batch.tokens)
            # A chunk that memory gets short for is finished as without an order.
            assert batch.prefill_tokens <= (tokens if tokens > 0 and not had_chunk else chunk)
            assert mixed or not batch.decoding
        assert 0 <= engine.kv.used_tokens <= engine.kv.capacity_tokens
        assert len(engine.running) + (engine.chunked is not None) <= running
    assert engine.idle
    assert [item.output_tokens for item in rows] == [output for _, output in sizes]
    assert engine.kv.used_tokens == 0
