"""KV allocators of the reference CPU platform, for one token a page and for several."""

from __future__ import annotations

import pkgutil
from typing import Any

import pytest

from sglang_patch.platforms import reference_cpu

torch = pytest.importorskip("torch")
pytest.importorskip("sglang")

PAGE = 16


def allocator(size: int, page_size: int) -> Any:
    """As SGLang makes one."""
    platform = pkgutil.resolve_name(reference_cpu.PLATFORM_CLASS)()
    return platform.get_paged_allocator_cls()(
        size,
        page_size=page_size,
        dtype=torch.float32,
        device="cpu",
        kvcache=None,
        need_sort=False,
    )


def extend(pool: Any, start: int, end: int, last: int) -> Any:
    starts, ends = torch.tensor([start]), torch.tensor([end])
    return pool.alloc_extend(starts, starts, ends, ends, torch.tensor([last]), end - start)


def test_pages_of_one_token_are_kept_by_the_allocator_that_copies_little() -> None:
    assert type(allocator(8, 1)).__name__ == "TokenAllocator"


def test_a_prompt_in_chunks_and_its_answer_share_pages() -> None:
    pool = allocator(8 * PAGE, PAGE)
    first = extend(pool, 0, 2 * PAGE, -1)
    second = extend(pool, 2 * PAGE, 2 * PAGE + 5, int(first[-1]))
    assert pool.available_size() == 5 * PAGE
    last, slots = int(second[-1]), [*first.tolist(), *second.tolist()]
    for length in range(2 * PAGE + 6, 3 * PAGE + 2):
        ends = torch.tensor([length])
        slot = pool.alloc_decode(ends, ends, torch.tensor([last]))
        last = int(slot)
        slots.append(last)
    assert pool.available_size() == 4 * PAGE, "the answer's first tokens fill the prompt's page"
    pages = [slot // PAGE for slot in slots[::PAGE]]
    assert slots == [page * PAGE + at for page in pages for at in range(PAGE)][: len(slots)]
    pool.free(torch.tensor(slots))
    assert pool.available_size() == 8 * PAGE


def test_what_does_not_fit_is_not_given() -> None:
    pool = allocator(2 * PAGE, PAGE)
    assert extend(pool, 0, 3 * PAGE, -1) is None
    assert pool.available_size() == 2 * PAGE
    assert extend(pool, 0, 2 * PAGE, -1) is not None
    ends = torch.tensor([PAGE + 1])
    assert pool.alloc_decode(ends, ends, torch.tensor([3])) is None
