"""Ends of requests: each is told once, and as many are kept as memory allows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from governor_protos import decode_to_controller, encode
from governor_protos.limits import MAX_ENDED
from governor_protos.messages import EndReason, RequestEnd, Snapshot
from hypothesis import given
from hypothesis import strategies as st

from sglang_patch.config import EngineConfig
from sglang_patch.ends import MAX_BACKLOG, EndLog
from sglang_patch.fallback import FallReason
from sglang_patch.governor import REPORT_EVERY_STEPS, EngineGovernor
from sglang_patch.requests import ALONE
from sglang_patch.rows import RowRecord, RowTable
from sglang_patch.seams.ends import HEALTH_CHECK, note_end


class FakeLink:
    """A connection that may be down."""

    def __init__(self) -> None:
        self.is_asking = True
        self.leaves = True
        self.decision = None
        self.sent: list[Snapshot] = []

    def ask(self, snapshot: Snapshot, now_s: float) -> bool:
        if self.leaves:
            self.sent.append(snapshot)
        return self.leaves

    def poll(self, now_s: float) -> None: ...

    def wait(self, step: int, longest_s: float) -> None: ...

    def keep_alive(self, now_s: float) -> None: ...

    def trouble(self) -> FallReason:
        return FallReason.NO_REPLY

    def close(self, reason: str) -> None: ...

    @property
    def ends(self) -> list[RequestEnd]:
        return [end for snapshot in self.sent for end in snapshot.ended]


def record(number: int, max_new_tokens: int = 64) -> RowRecord:
    return RowRecord(
        number, f"r{number}", 0, ALONE, 1.0, prompt_tokens=7, max_new_tokens=max_new_tokens
    )


def end(log: EndLog | EngineGovernor, number: int) -> None:
    tell = log.add if isinstance(log, EndLog) else log.ended
    tell(record(number), EndReason.STOPPED, 3.5, output_tokens=5)


def observe(governor: EngineGovernor, step: int) -> None:
    governor.observe(
        RowTable(),
        for_step=step,
        now_s=4.0,
        kv_used_tokens=0,
        kv_total_tokens=100,
        waiting_requests=0,
        waiting_prefill_tokens=0,
    )


@pytest.fixture
def link() -> FakeLink:
    return FakeLink()


@pytest.fixture
def governor(link: FakeLink) -> EngineGovernor:
    return EngineGovernor(EngineConfig(), link, overlap=True)


def test_an_end_says_what_the_row_was(governor: EngineGovernor, link: FakeLink) -> None:
    hinted = ALONE._replace(expected_tokens=50)
    row = RowRecord(9, "r", 4, hinted, 1.0, prompt_tokens=30, max_new_tokens=64)
    governor.ended(
        row, EndReason.LENGTH, 3.5, output_tokens=64, draft_tokens=90, accepted_tokens=40
    )
    observe(governor, 0)
    assert link.ends == [RequestEnd(9, 4, 30, 64, 64, EndReason.LENGTH, 2.5, 90, 40, 50)]
    assert decode_to_controller(encode(link.sent[0])) == link.sent[0]


def test_a_row_ends_once_and_a_warm_up_not_at_all() -> None:
    log, row = EndLog(), record(1)
    for _ in range(3):  # the overlap loop sees a finished row again
        log.add(row, EndReason.STOPPED, 2.0, output_tokens=5)
    log.add(record(2, max_new_tokens=0), EndReason.LENGTH, 2.0, output_tokens=1)
    assert [item.request_id for item in log.oldest()] == [1]


def test_steps_without_a_report_keep_ends_for_the_next(
    governor: EngineGovernor, link: FakeLink
) -> None:
    for step in range(1, REPORT_EVERY_STEPS + 1):
        end(governor, step)
        observe(governor, step)
    assert len(link.sent) == 1
    assert [item.request_id for item in link.ends] == list(range(1, REPORT_EVERY_STEPS + 1))


@given(st.lists(st.sampled_from(["end", "end", "lose", "refuse", "send"]), max_size=60))
def test_nothing_is_lost_or_told_twice_while_the_link_is_down(events: list[str]) -> None:
    link = FakeLink()
    governor = EngineGovernor(EngineConfig(), link, overlap=True)
    ended = 0
    for event in events:
        if event == "end":
            ended += 1
            end(governor, ended)
            continue
        link.is_asking, link.leaves = event != "lose", event != "refuse"
        observe(governor, 0)
    link.is_asking = link.leaves = True
    observe(governor, 0)
    assert [item.request_id for item in link.ends] == list(range(1, ended + 1))


def test_more_than_a_snapshot_carries_waits_for_the_next(
    governor: EngineGovernor, link: FakeLink
) -> None:
    for number in range(1, MAX_ENDED + 11):
        end(governor, number)
    observe(governor, 0)
    observe(governor, REPORT_EVERY_STEPS)
    assert [len(snapshot.ended) for snapshot in link.sent] == [MAX_ENDED, 10]
    assert [item.request_id for item in link.ends] == list(range(1, MAX_ENDED + 11))


def test_a_backlog_is_bounded_drops_the_oldest_and_counts_them(governor: EngineGovernor) -> None:
    log = EndLog()
    for number in range(MAX_BACKLOG + 25):
        end(log, number)
        end(governor, number)
    assert len(log) == MAX_BACKLOG
    assert log.dropped == governor.tally.dropped_ends == 25
    assert log.oldest()[0].request_id == 25


class Reason(SimpleNamespace):
    def to_json(self) -> dict[str, Any]:
        return {"type": self.kind}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("stop", EndReason.STOPPED),
        ("length", EndReason.LENGTH),
        ("abort", EndReason.ABORTED),
        ("something new", EndReason.ABORTED),
    ],
)
def test_sglangs_reasons_are_read(
    governor: EngineGovernor, link: FakeLink, kind: str, expected: EndReason
) -> None:
    req: Any = SimpleNamespace(
        rid="a", finished_reason=Reason(kind=kind), output_ids=[1] * 12, finished_len=None
    )
    note_end(req, record(1), governor, 2.0)
    drafting: Any = SimpleNamespace(
        rid="b",
        finished_reason=Reason(kind=kind),
        output_ids=[1] * 12,
        finished_len=10,
    )
    row = record(2)
    row.note_drafts(16, 6)
    note_end(drafting, row, governor, 2.0)
    observe(governor, 0)
    told = [(e.reason, e.output_tokens, e.draft_tokens, e.accepted_tokens) for e in link.ends]
    assert told == [(expected, 12, 0, 0), (expected, 10, 16, 6)]


def test_health_probes_are_nobodys_requests(governor: EngineGovernor, link: FakeLink) -> None:
    probe: Any = SimpleNamespace(rid=f"{HEALTH_CHECK}_7")
    row = record(1)
    note_end(probe, row, governor, 2.0)
    observe(governor, 0)
    assert row.ended
    assert link.ends == []


def test_the_prefix_of_health_probes_is_sglangs() -> None:
    constants = pytest.importorskip("sglang.srt.constants")
    assert constants.HEALTH_CHECK_RID_PREFIX == HEALTH_CHECK
