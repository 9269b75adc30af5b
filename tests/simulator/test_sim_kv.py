"""KV memory of the simulated engine."""

from __future__ import annotations

from governor_sim.kv import KvMemory
from governor_sim.rows import SimRow
from hypothesis import given
from hypothesis import strategies as st
from sim_builders import row


def prefill(kv: KvMemory, item: SimRow) -> None:
    """Bring a row in as the batcher does, and let its step end."""
    kv.admit(item)
    kv.take(item, item.length - item.hit_tokens)
    kv.share(item)


def write(kv: KvMemory, item: SimRow, tokens: int) -> None:
    """Decode steps of one row."""
    for _ in range(tokens):
        kv.take_one_each([item])
        item.output_tokens += 1


def test_branches_share_their_prompt() -> None:
    kv = KvMemory(1000)
    branches = [row(7, prompt=100) for _ in range(4)]
    for branch in branches:
        prefill(kv, branch)
    assert kv.used_tokens == 100
    kv.take_one_each(branches)
    assert kv.used_tokens == 104
    kv.release(branches[0])
    assert kv.used_tokens == 103
    for branch in branches[1:]:
        kv.release(branch)
    assert (kv.used_tokens, kv.reachable_tokens) == (0, 1000)


def test_two_that_compute_one_prompt_at_a_time_keep_one_copy() -> None:
    kv = KvMemory(1000)
    first, second = row(7, prompt=100), row(7, prompt=100)
    for item in (first, second):
        kv.admit(item)
        kv.take(item, 100)
    assert kv.used_tokens == 200
    kv.share(first)
    kv.share(second)
    assert kv.used_tokens == 100


def test_the_last_token_of_a_cached_prompt_is_computed_anew() -> None:
    kv = KvMemory(1000)
    prefill(kv, row(7, prompt=100))
    assert kv.match(row(7, prompt=100)) == (1, 99)


def test_blocks_of_a_trace_are_shared_as_far_as_they_agree() -> None:
    kv = KvMemory(10_000)
    prefill(kv, row(1, prompt=1600, blocks=(1, 2, 3)))
    other = row(2, prompt=1600, blocks=(1, 2, 9))
    assert kv.match(other) == (2, 1024)
    prefill(kv, other)
    assert kv.used_tokens == 1600 + 576
    assert kv.match(row(3, prompt=1100, blocks=(1, 2)))[0] == 2
    # A block that the prompt's end cuts is not the whole block.
    assert kv.match(row(4, prompt=600, blocks=(1, 2)))[0] == 1


def test_what_is_in_use_is_never_evicted() -> None:
    kv = KvMemory(300)
    held, idle = row(1, prompt=100), row(2, prompt=100)
    prefill(kv, held)
    prefill(kv, idle)
    kv.release(idle)
    assert kv.match(row(2, prompt=100))[0] == 1
    prefill(kv, row(3, prompt=150))
    assert kv.match(row(1, prompt=100))[0] == 1
    assert kv.match(row(2, prompt=100))[0] == 0


def test_the_least_recently_used_goes_first_and_ends_before_beginnings() -> None:
    kv = KvMemory(100)
    old, new = row(1, prompt=30, block_tokens=10, blocks=(1, 2, 3)), row(2, prompt=30)
    for item in (old, new):
        prefill(kv, item)
        kv.release(item)
    prefill(kv, row(3, prompt=55))
    assert kv.match(row(1, prompt=30, block_tokens=10, blocks=(1, 2, 3))) == (1, 10)
    assert kv.match(row(2, prompt=30))[0] == 1


def test_a_retracted_row_finds_its_prompt_and_brings_its_output_in_again() -> None:
    kv = KvMemory(100)
    item = row(1, prompt=40, output=20)
    prefill(kv, item)
    for _ in range(8):
        kv.take_one_each([item])
        item.output_tokens += 1
    kv.release(item)
    assert kv.used_tokens == 0
    kv.admit(item)
    assert item.length - item.hit_tokens == 8


def test_a_row_that_is_set_aside_finds_all_but_its_last_token() -> None:
    kv = KvMemory(100)
    item = row(1, prompt=40, output=20)
    prefill(kv, item)
    item.output_tokens += 1
    for _ in range(2):
        write(kv, item, 8)
        kv.take_one_each([item])  # for a step whose token is dropped
        kv.set_aside(item)
        assert (kv.used_tokens, item.own_tokens) == (0, 0)
        kv.admit(item)
        kv.take(item, item.length - item.hit_tokens)
        assert item.own_tokens == 1
        assert kv.used_tokens == item.length, "the last token is not held twice"
        kv.share(item)
        assert kv.used_tokens == item.length
        item.output_tokens += 1


def test_who_was_set_aside_first_loses_its_output_first_and_then_its_prompt() -> None:
    kv = KvMemory(150)
    old, new = row(1, prompt=30, output=99), row(2, prompt=30, output=99)
    for item in (old, new):
        prefill(kv, item)
        item.output_tokens += 1
        write(kv, item, 20)
    for item in (old, new):
        kv.set_aside(item)
    found = []
    other = row(3)
    for tokens in (50, 1, 20, 20, 10):
        kv.take(other, tokens)
        found.append((kv.match(old)[1], kv.match(new)[1]))
    assert found == [(50, 50), (30, 50), (0, 50), (0, 50), (0, 30)]


def test_what_a_finished_row_wrote_outlives_who_was_set_aside_before() -> None:
    kv = KvMemory(100)
    aside, other = row(1, prompt=30, output=99), row(2, prompt=10, output=99)
    for item in (aside, other):
        prefill(kv, item)
        item.output_tokens += 1
    kv.set_aside(aside)
    write(kv, other, 50)
    kv.finish(other)
    assert kv.used_tokens == 0
    kv.take(row(3), 11)
    assert kv.match(aside)[1] == 0


def test_once_nobody_is_set_aside_what_finished_rows_wrote_is_in_nobodys_way() -> None:
    kv = KvMemory(100)
    idle, back, other = row(1, prompt=20), row(2, prompt=10), row(3, prompt=10, output=99)
    prefill(kv, idle)
    kv.finish(idle)
    prefill(kv, back)
    back.output_tokens += 1
    kv.set_aside(back)
    prefill(kv, back)
    prefill(kv, other)
    write(kv, other, 50)
    kv.finish(other)
    kv.take(row(4), 50)
    assert kv.match(row(1, prompt=20))[0] == 1


@given(st.data())
def test_the_books_balance(data: st.DataObject) -> None:
    kv = KvMemory(data.draw(st.integers(60, 400)))
    live: list[SimRow] = []
    aside: list[SimRow] = []
    for index in range(data.draw(st.integers(1, 30))):
        action = data.draw(st.sampled_from(["admit", "decode", "finish", "set aside", "return"]))
        if action == "admit":
            blocks = data.draw(st.sampled_from([(), (1,), (1, 2), (1, 2, 3), (4,)]))
            item = row(index, data.draw(st.integers(1, 50)), 5, blocks, block_tokens=10)
            if item.length <= kv.reachable_tokens:
                prefill(kv, item)
                live.append(item)
        elif action == "decode" and len(live) <= kv.reachable_tokens:
            kv.take_one_each(live)
            for item in live:
                item.output_tokens += 1
        elif action in ("finish", "set aside") and live:
            item = live.pop(data.draw(st.integers(0, len(live) - 1)))
            if action == "set aside":
                aside.append(item)
                kv.set_aside(item)
            else:
                kv.finish(item)
        elif action == "return" and aside and aside[0].length <= kv.reachable_tokens:
            live.append(aside.pop(0))
            prefill(kv, live[-1])
        shared = {segment for item in live for segment in item.segments}
        own = sum(item.own_tokens for item in live)
        assert kv.used_tokens == own + sum(tokens for _, tokens in shared)
        assert kv.used_tokens + kv.reachable_tokens == kv.capacity_tokens
        assert kv.reachable_tokens >= 0
        assert all(kv.match(item)[0] == len(item.segments) for item in live)
        assert all(_cacheable(item) <= item.length for item in (*live, *aside))
        assert all(kv.match(item)[1] < item.length for item in aside)
    for item in live:
        kv.finish(item)
    assert kv.used_tokens == 0


def _cacheable(item: SimRow) -> int:
    return sum(tokens for _, tokens in item.segments)
