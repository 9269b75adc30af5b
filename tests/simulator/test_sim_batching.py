"""SGLang's batching rules as the simulator has them."""

from __future__ import annotations

import pytest
from governor_sim.batching import FIRST_RATIO, LEAST_RATIO
from hypothesis import given
from hypothesis import strategies as st
from sim_builders import row
from sim_turns import batcher, turn


@given(prompts=st.lists(st.integers(1, 90), min_size=1, max_size=8), chunk=st.integers(1, 100))
def test_chunks_bring_in_exactly_the_prompts_in_order(prompts: list[int], chunk: int) -> None:
    engine = batcher(chunk=chunk)
    rows = [row(index, prompt, 1) for index, prompt in enumerate(prompts)]
    engine.waiting.extend(rows)
    brought = dict.fromkeys(range(len(rows)), 0)
    order: list[int] = []
    while not engine.idle:
        batch = turn(engine)
        if batch is None:
            continue
        assert batch.prefill_tokens <= chunk
        assert all(tokens > 0 for tokens in batch.tokens)
        for item, tokens in zip(batch.rows, batch.tokens, strict=True):
            brought[item.request.index] += tokens
            order.append(item.request.index)
    assert list(brought.values()) == prompts
    assert order == sorted(order)


def test_the_limit_of_running_requests_holds_the_queue() -> None:
    engine = batcher(running=2)
    engine.waiting.extend(row(index, output=3) for index in range(3))
    first = turn(engine)
    assert first is not None
    assert len(first.rows) == 2
    assert turn(engine) is None
    assert turn(engine) is None
    second = turn(engine)
    assert second is not None
    assert [item.request.index for item in second.rows] == [2]


def test_nobody_overtakes_a_request_that_does_not_fit() -> None:
    engine = batcher(kv_tokens=100)
    engine.waiting.extend([row(0, 40, 20), row(1, 50, 20), row(2, 1, 1)])
    first = turn(engine)
    assert first is not None
    assert [item.request.index for item in first.rows] == [0]
    assert [item.request.index for item in engine.waiting] == [1, 2]


def test_a_request_in_chunks_keeps_room_for_its_output() -> None:
    engine = batcher(kv_tokens=102, chunk=32)
    engine.waiting.extend([row(0, 40, 50), row(1, 2, 20)])
    assert turn(engine) is not None
    batch = turn(engine)
    assert batch is not None
    assert [item.request.index for item in batch.rows] == [0]


def test_expected_growth_relaxes_while_decodes_fit_and_no_further_than_its_floor() -> None:
    engine = batcher()
    engine.running.append(row(0, 10, 1000))
    assert engine.expected_growth() == pytest.approx(FIRST_RATIO * 1000)
    for _ in range(700):
        engine.make_room()
    assert engine.expected_growth() == pytest.approx(LEAST_RATIO * 1000)
    engine.reset()
    assert engine.expected_growth() == pytest.approx(FIRST_RATIO * 1000)


def test_retraction_takes_those_with_the_least_output_and_frees_their_memory() -> None:
    engine = batcher(kv_tokens=30)
    rows = [row(index, 10, 50) for index in range(3)]
    for item, output in zip(rows, (5, 0, 5), strict=True):
        engine.kv.admit(item)
        engine.kv.take(item, 10)
        item.output_tokens = output
        engine.running.append(item)
    engine.make_room()
    assert [item.request.index for item in engine.running] == [0, 2]
    assert list(engine.waiting) == [rows[1]]
    assert rows[1].retracted
    assert engine.kv.used_tokens == 20
    assert engine.retractions == 1


@given(
    sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=12),
    spare=st.integers(3, 60),
    running=st.integers(1, 12),
    chunk=st.integers(1, 50),
)
def test_everybody_finishes_within_memory_and_limits(
    sizes: list[tuple[int, int]], spare: int, running: int, chunk: int
) -> None:
    engine = batcher(max(map(sum, sizes)) + spare, running, chunk)
    rows = [row(index, *size) for index, size in enumerate(sizes)]
    engine.waiting.extend(rows)
    first_seen: list[int] = []
    for _ in range(20_000):
        if engine.idle:
            break
        batch = turn(engine)
        first_seen += [
            item.request.index
            for item in (batch.rows if batch else [])
            if item.request.index not in first_seen
        ]
        assert 0 <= engine.kv.used_tokens <= engine.kv.capacity_tokens
        assert len(engine.running) + (engine.chunked is not None) <= running
    assert engine.idle
    assert [item.output_tokens for item in rows] == [output for _, output in sizes]
    assert first_seen == list(range(len(rows)))
    assert engine.kv.used_tokens == 0
