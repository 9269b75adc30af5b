"""What differs between SGLang versions: either way is read right, whichever is installed."""

from __future__ import annotations

from array import array
from types import SimpleNamespace
from typing import Any

import pytest
from plain_trees import insert, plain_tree
from waiting_requests import Request

from sglang_patch.governor import StepOrder
from sglang_patch.seams import decoding, runtime
from sglang_patch.seams.differences import kv_record, prefix_cache, upkeep
from sglang_patch.seams.differences.kv_record import OnRecord, OnRequest
from sglang_patch.seams.differences.last_steps import staying
from sglang_patch.seams.differences.prefix_cache import SeparateCaches, UnifiedCache
from sglang_patch.seams.differences.ranks import Ranks, ranks_of
from sglang_patch.seams.versions import installed

pytest.importorskip("sglang.srt.managers.scheduler")

CHOSEN: dict[str, tuple[type, type, bool]] = {
    "0.5.17": (OnRequest, SeparateCaches, True),
    "0.5.23": (OnRecord, UnifiedCache, False),
}


def test_this_version_gets_its_own_way_of_each() -> None:
    record, cache, looks_after = CHOSEN[installed()]
    assert type(kv_record.kv_record()) is record
    assert type(prefix_cache.prefix_cache()) is cache
    scheduler: Any = SimpleNamespace(
        enable_hierarchical_cache=True,
        tree_cache=SimpleNamespace(check_hicache_events=lambda: asked.append(True)),
    )
    asked: list[bool] = []
    upkeep.upkeep()(scheduler)
    assert bool(asked) == looks_after


def test_ranks_are_those_of_the_scheduler() -> None:
    own = SimpleNamespace(attn_tp_rank=0, attn_cp_rank=0, dp_rank=None, tp_size=2)
    assert ranks_of(SimpleNamespace(ps=own)) == Ranks(True, 0, 2)  # type: ignore[arg-type]
    other = SimpleNamespace(attn_tp_rank=1, attn_cp_rank=0, dp_rank=3, tp_size=2)
    assert ranks_of(SimpleNamespace(ps=other)) == Ranks(False, 3, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize(("cached", "all_of_it"), [(7, False), (8, True)])
def test_kv_outside_the_cache_is_told_either_way(cached: int, all_of_it: bool) -> None:
    own: Any = SimpleNamespace(
        extend_range=SimpleNamespace(end=5),
        cache_protected_len=cached,
        kv=SimpleNamespace(kv_allocated_len=8),
    )
    assert OnRequest().prefilled_to(own) == 5
    assert OnRequest().is_all_cached(own) == all_of_it
    own.kv = None
    assert OnRequest().is_all_cached(own)
    kv = SimpleNamespace(holds_kv=True, cache_protected_len=cached, kv_allocated_len=8)
    apart: Any = SimpleNamespace(extend_end=6, kv=kv)
    assert OnRecord().prefilled_to(apart) == 6
    assert OnRecord().is_all_cached(apart) == all_of_it
    kv.holds_kv = False
    assert OnRecord().is_all_cached(apart)


def test_a_row_whose_end_is_under_way_does_not_stay() -> None:
    rows = [Request(rid) for rid in "abc"]
    rows[1].ended = True
    batch: Any = SimpleNamespace(reqs=rows)
    stock: Any = SimpleNamespace()
    assert [req.rid for req in staying(stock, batch)] == ["a", "c"]
    skipping: Any = SimpleNamespace(_reqs_finishing_inflight=lambda batch: batch.reqs[:1])
    assert [req.rid for req in staying(skipping, batch)] == ["c"]


def test_namespaces_of_a_cache_are_kept_apart() -> None:
    cache = plain_tree()
    insert(cache, range(30))
    req: Any = Request("a", 40)
    way = prefix_cache.prefix_cache()
    assert way.found(cache, req, req.origin_input_ids, 39) == 30
    assert way.found(cache, req, array("q", [9, 9]), 2) == 0
    req.extra_key = "other"
    assert way.found(cache, req, req.origin_input_ids, 39) == 0


def test_caches_with_more_than_one_kind_of_memory_are_not_plain() -> None:
    cache = plain_tree()
    way = prefix_cache.prefix_cache()
    assert way.is_plain(cache)
    assert way.keeps_prefixes(cache)
    cache.disable = True
    assert not way.keeps_prefixes(cache)
    assert not way.is_plain(SimpleNamespace())
    if isinstance(way, UnifiedCache):
        cache.cache_controller = object()  # KV in host memory
        assert not way.is_plain(cache)


class Counting:
    """A governor that notes what it is told of decode steps."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def decode_planned(self, *args: Any, **facts: Any) -> None:
        self.told.append("planned")

    def decode_skipped(self, *, retracted: int) -> None:
        self.told.append(f"skipped {retracted}")


@pytest.mark.parametrize(("to_run", "told"), [(object(), "planned"), (None, "skipped 0")])
def test_a_step_that_sglang_skips_is_not_counted_as_run(to_run: Any, told: str) -> None:
    governor: Any = Counting()
    scheduler: Any = SimpleNamespace(forward_ct=0)
    state = runtime.SchedulerRuntime(scheduler=scheduler, governor=governor)
    state.accept(StepOrder(1, ()))
    runtime.install(state)
    try:
        batch: Any = SimpleNamespace(reqs=[], is_empty=lambda: False)
        found = decoding.around_update_running_batch(lambda *_: to_run, scheduler, batch)
    finally:
        runtime.install(None)  # type: ignore[arg-type]
    assert found is to_run
    assert governor.told == [told]
