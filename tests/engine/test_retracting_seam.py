"""The seam of retraction, without an engine: who may go, and who stays whatever is ordered."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from governor_protos.messages import RowFlag
from hypothesis import given
from hypothesis import strategies as st
from plain_trees import plain_tree
from waiting_requests import Request, scheduler_of

from sglang_patch.deadlines import Deadlines
from sglang_patch.rows import Names
from sglang_patch.seams import requests, retracting


class Running:
    """A batch, as far as rows leave it."""

    def __init__(self, reqs: list[Row]) -> None:
        self.reqs = reqs

    def filter_batch(self, keep_indices: list[int]) -> None:
        self.reqs = [self.reqs[index] for index in keep_indices]


class Row(Request):
    """A request that has said something and holds memory."""

    def __init__(self, rid: str, *, said: int = 3, max_new_tokens: int = 8, **facts: Any) -> None:
        super().__init__(rid, said=said, max_new_tokens=max_new_tokens)
        self.holds = True
        for name, value in facts.items():
            setattr(self, name, value)

    def reset_for_retract(self) -> None:
        assert not self.holds, "its memory is freed first"


def protected(rid: str) -> Row:
    row = Row(rid)
    row.sampling_params.custom_params = {"protected": True}
    return row


def penalised(rid: str) -> Row:
    row = Row(rid)
    row.sampling_params.presence_penalty = 0.5
    return row


def engine(**changes: Any) -> Any:
    scheduler = scheduler_of([], plain_tree(), **changes)
    facts: dict[str, Any] = {
        "enable_overlap": True,
        "last_batch": None,
        "max_total_num_tokens": 1000,
        "max_queued_requests": None,
        "metrics_reporter": SimpleNamespace(num_retracted_reqs=0, enable_metrics=False),
        "_add_request_to_queue": lambda req, is_retracted: scheduler.waiting_queue.append(req),
    }
    scheduler.__dict__.update(facts | changes)
    return scheduler


@pytest.fixture(autouse=True)
def released(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Rows whose memory was freed, in order."""
    from sglang.srt.mem_cache import common

    rids: list[str] = []

    def release_kv_cache(req: Row, tree: Any, **how: Any) -> None:
        req.holds = False
        rids.append(req.rid)

    monkeypatch.setattr(common, "release_kv_cache", release_kv_cache)
    return rids


def retract(scheduler: Any, rows: list[Row], *rids: str) -> tuple[str, str]:
    """Ids of those that stay, and of those that wait."""
    running = Running(rows)
    gone = retracting.retract(scheduler, running, frozenset(rids))  # type: ignore[arg-type]
    assert gone == scheduler.waiting_queue
    assert scheduler.metrics_reporter.num_retracted_reqs == len(gone)
    return "".join(req.rid for req in running.reqs), "".join(req.rid for req in gone)


def test_those_named_go_back_to_the_queue(released: list[str]) -> None:
    assert retract(engine(), [Row(rid) for rid in "abcd"], "d", "b", "x") == ("ac", "bd")
    assert released == ["b", "d"]


@pytest.mark.parametrize(
    "stays",
    [
        protected("a"),
        penalised("a"),
        Row("a", to_finish=object()),
        Row("a", said=7),
        Row("a", input_embeds=[[0.0]]),
        Row("a", multimodal_inputs=object()),
        Row("a", session=SimpleNamespace(timeout=None)),
        Row("a", return_routed_experts=True),
        Row("a", return_indexer_topk=True),
        Row("a", max_new_tokens=990),
    ],
    ids=[
        *("protected", "pinned", "aborting", "at its end", "embeddings", "images", "session"),
        *("experts", "indexer", "too long to come back"),
    ],
)
def test_some_rows_stay_whatever_is_ordered(stays: Row) -> None:
    assert retract(engine(), [stays, Row("b"), Row("c")], "a", "b") == ("ac", "b")


@pytest.mark.parametrize(("overlap", "stays"), [(True, "ac"), (False, "c")])
def test_a_row_gets_its_first_token_first(overlap: bool, stays: str) -> None:
    rows = [Row(rid) for rid in "abc"]
    mode = SimpleNamespace(is_extend=lambda: True)
    last = SimpleNamespace(reqs=rows[:1], forward_mode=mode)
    scheduler = engine(enable_overlap=overlap, last_batch=last)
    assert retract(scheduler, rows, "a", "b")[0] == stays


def test_nobody_is_sent_to_a_queue_that_has_no_place() -> None:
    scheduler = engine(max_queued_requests=1)
    assert retract(scheduler, [Row(rid) for rid in "abc"], "a", "b") == ("bc", "a")
    scheduler.metrics_reporter.num_retracted_reqs, scheduler.waiting_queue = 0, []
    scheduler.max_queued_requests = 0
    assert retract(scheduler, [Row("a"), Row("b")], "a") == ("ab", "")


@given(st.lists(st.booleans(), min_size=1, max_size=6), st.data())
def test_a_batch_is_never_left_without_rows(ends: list[bool], data: st.DataObject) -> None:
    rows = [
        Row("abcdef"[place], said=7 if at_its_end else 3) for place, at_its_end in enumerate(ends)
    ]
    named = data.draw(st.sets(st.sampled_from([row.rid for row in rows])))
    stay, wait = retract(engine(), rows, *named)
    assert stay
    assert sorted(stay + wait) == [row.rid for row in rows]
    assert set(wait) <= named


@pytest.mark.parametrize(
    ("changes", "timeout_s"),
    [
        ({"chunked_prefill_size": None}, 0),
        ({"is_hybrid_swa": True}, 0),
        ({"tree_cache": object()}, 0),
        ({}, 5),
    ],
)
def test_some_engines_are_not_told(changes: dict[str, Any], timeout_s: float) -> None:
    from sglang.srt.environ import envs

    assert retracting.can_be_told(engine())
    for limit in (envs.SGLANG_REQ_WAITING_TIMEOUT, envs.SGLANG_REQ_RUNNING_TIMEOUT):
        with limit.override(timeout_s):
            assert not retracting.can_be_told(engine(**changes))


def test_rows_that_keep_their_memory_are_told_as_protected() -> None:
    names = Names()

    def admit(rid: str, *args: Any, **facts: Any) -> Any:
        return SimpleNamespace(request_id=names.request_id(), rid=rid, **facts)

    rows = [
        protected("a"),
        Row("b"),
        Row("c", session=SimpleNamespace(timeout=None)),
        penalised("d"),
    ]
    table = requests.read_table(
        rows,  # type: ignore[arg-type]
        None,
        SimpleNamespace(admit=admit, deadlines=Deadlines()),  # type: ignore[arg-type]
        low_is_urgent=False,
    )
    assert table.flags == [RowFlag.PROTECTED, 0, RowFlag.PROTECTED, RowFlag.PINNED]
