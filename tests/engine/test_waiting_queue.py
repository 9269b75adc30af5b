"""Reading the waiting queue: who waits, what is missing, who is gone; nothing is changed by it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from governor_protos.limits import MAX_QUEUED
from governor_protos.messages import EndReason, QueueFlag
from hypothesis import given
from hypothesis import strategies as st
from plain_trees import found_by_sglang, insert, nodes, plain_tree
from waiting_requests import Request, scheduler_of

from sglang_patch.config import EngineConfig
from sglang_patch.governor import EngineGovernor
from sglang_patch.queue import QueueTable
from sglang_patch.rows import RowRecord
from sglang_patch.seams import waiting
from sglang_patch.seams.prefix_hits import cached_tokens


class Governor(EngineGovernor):
    """Notes whose end it is told of."""

    def __init__(self) -> None:
        super().__init__(EngineConfig(), SimpleNamespace(), overlap=True, prefill=True)  # type: ignore[arg-type]
        self.gone: list[tuple[str, EndReason]] = []

    def ended(self, record: RowRecord, reason: EndReason, now_s: float, **said: int) -> None:
        self.gone.append((record.rid, reason))


Ids = st.lists(st.integers(0, 2), min_size=1, max_size=24)


@given(
    cached=st.lists(Ids, max_size=6),
    asked=Ids,
    page_size=st.sampled_from((1, 4)),
    bigrams=st.booleans(),
)
def test_hits_are_those_of_sglang_and_the_cache_is_as_before(
    cached: list[list[int]], asked: list[int], page_size: int, bigrams: bool
) -> None:
    cache = plain_tree(page_size, bigrams=bigrams)
    for ids in cached:
        insert(cache, ids)
    before = nodes(cache)
    req: Any = Request("asked", asked)
    found = cached_tokens(cache, req)
    assert nodes(cache) == before
    assert found == found_by_sglang(cache, asked, len(asked) - 1)


def test_other_caches_are_not_looked_into() -> None:
    req: Any = Request("a", 40)
    assert cached_tokens(SimpleNamespace(), req) == 0
    cache = plain_tree()
    insert(cache, range(40))
    req.positional_embed_overrides = object()
    assert cached_tokens(cache, req) == 0


def read(
    queue: waiting.WaitingQueue, scheduler: Any, governor: Governor, rows: Any = ()
) -> QueueTable:
    return queue.read(scheduler, governor, rows, 5.0, low_is_urgent=False)


def test_the_started_one_comes_first_and_cached_prefixes_are_done() -> None:
    cache, governor = plain_tree(), Governor()
    insert(cache, range(30))
    started = Request("started", 100)
    started.prefilled = 64
    queue = [Request("a", 50), Request("b", 20, said=3), Request("c", [7] * 9)]
    table = read(waiting.WaitingQueue(), scheduler_of(queue, cache, chunked_req=started), governor)
    assert [one.rid for one in table.records] == ["started", "a", "b", "c"]
    assert table.flags == [QueueFlag.STARTED, 0, 0, 0]
    assert table.missing_tokens == [36, 20, 3, 9]
    assert table.output_tokens == [0, 0, 3, 0]
    assert [one.request_id for one in table.records] == [1, 2, 3, 4]


def test_a_request_keeps_its_record() -> None:
    governor, reader = Governor(), waiting.WaitingQueue()
    queue = [Request("a"), Request("b")]
    scheduler = scheduler_of(queue, plain_tree())
    before = read(reader, scheduler, governor).records
    scheduler.chunked_req, scheduler.waiting_queue = queue[1], queue[:1]
    after = read(reader, scheduler, governor)
    assert after.records == [before[1], before[0]]
    assert governor.gone == []


def test_those_that_neither_wait_nor_run_are_told_of_once() -> None:
    governor, reader = Governor(), waiting.WaitingQueue()
    queue = [Request(rid) for rid in ("runs", "aborted", "waits", "HEALTH_CHECK-1")]
    scheduler = scheduler_of(queue, plain_tree())
    rows = read(reader, scheduler, governor).records[:1]
    scheduler.waiting_queue = [queue[2]]
    read(reader, scheduler, governor, rows)
    assert governor.gone == [("aborted", EndReason.ABORTED)]
    scheduler.waiting_queue = []
    assert read(reader, scheduler, governor, rows).records == []
    assert [rid for rid, _ in governor.gone] == ["aborted", "waits"]
    read(reader, scheduler, governor, rows)
    assert len(governor.gone) == 2


def test_who_waits_behind_the_part_that_is_read_is_not_lost() -> None:
    governor, reader = Governor(), waiting.WaitingQueue()
    queue = [Request(str(number), 1) for number in range(MAX_QUEUED + 5)]
    scheduler = scheduler_of(queue, plain_tree())
    assert len(read(reader, scheduler, governor).records) == MAX_QUEUED
    scheduler.waiting_queue = queue[::-1]
    assert len(read(reader, scheduler, governor).records) == MAX_QUEUED
    scheduler.chunked_req, scheduler.waiting_queue = queue[0], queue[1:]
    assert len(read(reader, scheduler, governor).records) == MAX_QUEUED
    assert governor.gone == []


def test_lookups_are_bounded_and_come_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def look(cache: Any, req: Any) -> int:
        asked.append(req.rid)
        return 4

    monkeypatch.setattr(waiting, "cached_tokens", look)
    governor, reader = Governor(), waiting.WaitingQueue()
    queue = [Request(str(number)) for number in range(20)]
    scheduler = scheduler_of(queue, plain_tree())
    tables = []
    for _ in range(5):
        tables.append(read(reader, scheduler, governor))
    assert len(asked) == 5 * waiting.MAX_LOOKUPS
    assert asked[:20] == [str(number) for number in range(20)]
    assert sorted(set(asked[20:]), key=int) == [str(number) for number in range(20)]
    assert tables[0].missing_tokens == [6] * 8 + [10] * 12
    assert tables[2].missing_tokens == [6] * 20


def test_a_step_looks_up_so_many_tokens_and_at_least_one_request() -> None:
    cache, governor, reader = plain_tree(), Governor(), waiting.WaitingQueue()
    long = waiting.MAX_TOKENS_LOOKED_UP + 10
    insert(cache, range(long))
    queue = [Request("a", long), Request("b", long)]
    scheduler = scheduler_of(queue, cache)
    assert read(reader, scheduler, governor).missing_tokens == [1, long]
    assert read(reader, scheduler, governor).missing_tokens == [1, 1]
