"""The KV allocator of the CPU platform: slots are never lost, and freeing copies little."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
token_allocator = pytest.importorskip("sglang_patch.platforms.token_allocator")


def allocator(size: int, *, need_sort: bool = False) -> Any:
    return token_allocator.TokenAllocator(
        size, dtype=torch.float32, device="cpu", kvcache=None, need_sort=need_sort
    )


@pytest.mark.parametrize("need_sort", [False, True])
def test_freed_slots_can_be_allocated_again(need_sort: bool) -> None:
    pool = allocator(10, need_sort=need_sort)
    first, second = pool.alloc(6), pool.alloc(4)
    assert pool.alloc(1) is None
    pool.free(second)
    pool.free(first[:2])
    assert pool.available_size() == 6
    assert pool.alloc(7) is None
    again = pool.alloc(6)
    assert sorted([*again.tolist(), *first[2:].tolist()]) == list(range(1, 11))


def test_slots_freed_as_a_group_come_back() -> None:
    pool = allocator(5)
    taken = pool.alloc(5)
    pool.free_group_begin()
    pool.free(taken[:3])
    pool.free(taken[3:])
    pool.free_group_end()
    assert sorted(pool.alloc(5).tolist()) == [1, 2, 3, 4, 5]


def test_freeing_leaves_the_long_free_list_alone() -> None:
    pool = allocator(4 * token_allocator.JOIN_TOKENS)
    taken = pool.alloc(2 * token_allocator.JOIN_TOKENS)
    free_list = pool.free_pages
    pool.free(taken[:100])
    assert pool.free_pages is free_list
    pool.free(taken[100:])
    assert len(pool.release_pages) == 0
    assert pool.available_size() == 4 * token_allocator.JOIN_TOKENS
