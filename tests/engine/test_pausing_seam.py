"""What the prefix cache keeps of rows that Governor retracted when the engine is paused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from plain_trees import found_by_sglang, insert, plain_tree
from waiting_requests import Request

from sglang_patch.seams.pausing import after_pause_generation

PROMPT = [1, 2, 3]
SAID = [4, 5, 6]
OTHERS = [7, 8, 9]


def found_after_pause(mode: str, *, retracted: bool) -> tuple[int, int]:
    """Tokens found of the waiting row, and of a request that has ended before."""
    tree = plain_tree()
    tree.token_to_kv_pool_allocator = SimpleNamespace(
        device="cpu", page_size=1, free_segment=lambda *_, **__: None
    )
    insert(tree, PROMPT + SAID)
    insert(tree, OTHERS)
    row: Any = Request("a", PROMPT, said=len(SAID))
    row.governor_retracted = retracted
    scheduler: Any = SimpleNamespace(tree_cache=tree, waiting_queue=[row, Request("b", [1, 2])])
    after_pause_generation(None, scheduler, SimpleNamespace(mode=mode))
    assert tree.protected_size() == 0
    return found_by_sglang(tree, PROMPT + SAID, 6), found_by_sglang(tree, OTHERS, 3)


def test_only_prompts_of_live_requests_are_left_where_one_was_retracted() -> None:
    assert found_after_pause("retract", retracted=True) == (3, 0)


@pytest.mark.parametrize(("mode", "retracted"), [("in_place", True), ("retract", False)])
def test_otherwise_all_stays(mode: str, retracted: bool) -> None:
    assert found_after_pause(mode, retracted=retracted) == (6, 3)
