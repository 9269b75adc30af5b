"""Difference: what SGLang looks after whenever it tries to prefill."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sglang.srt.managers.scheduler import Scheduler


def _caches_with_prefill(scheduler: Scheduler) -> None:
    """Up to 0.5.17, caches with parts in other memory take in what has arrived."""
    from sglang.srt.runtime_context import get_memory

    if scheduler.enable_hierarchical_cache or get_memory().enable_flexkv:
        scheduler.tree_cache.check_hicache_events()


def _nothing(scheduler: Scheduler) -> None:
    """In 0.5.23 that is done in every iteration, whether it tries or not."""


@functools.cache
def upkeep() -> Callable[[Scheduler], None]:
    """What has to be done at a step that does not try to prefill."""
    from sglang.srt.managers.scheduler import Scheduler

    return _nothing if hasattr(Scheduler, "_process_hicache_events") else _caches_with_prefill
