"""Draft lengths on the engine side: only what the engine can do, and only while it can be told."""

from __future__ import annotations

from governor_protos.columns import pack, unpack
from governor_protos.messages import Band, Decision, Outcome, Snapshot, StepKind
from hypothesis import given
from hypothesis import strategies as st

from sglang_patch.apply.speculation import (
    OWN_CHOICE,
    DraftOrder,
    drafts_as_decided,
    drafts_by_orders,
    nearest,
)
from sglang_patch.config import EngineConfig
from sglang_patch.fallback import FallReason
from sglang_patch.governor import EngineGovernor
from sglang_patch.requests import RequestTerms
from sglang_patch.rows import RowRecord, RowTable
from sglang_patch.steps import LaunchedStep, StepMeter

LENGTHS = (0, 1, 3, 5)
SERIAL = RequestTerms("", False, None, None)


def record(number: int) -> RowRecord:
    return RowRecord(number, f"r{number}", 0, SERIAL, 0.0, prompt_tokens=5, max_new_tokens=50)


def table_of(*numbers: int) -> RowTable:
    return RowTable([record(n) for n in numbers], [0] * len(numbers), [1] * len(numbers))


def decision(step: int = 1, **facts: object) -> Decision:
    plain = {"park": b"", "orders": [Band(64, -1, -1, 1)], "policy": "turbospec"}
    times = dict.fromkeys(["predicted_step_s", "baseline_step_s", "budget_s", "slack_s"], 0.0)
    return Decision(for_step=step, lease_steps=4, **{**plain, **times, **facts})


@given(st.integers(-1, 80), st.lists(st.integers(0, 64), min_size=1, max_size=8, unique=True))
def test_the_engine_takes_a_length_that_it_has(wanted: int, lengths: list[int]) -> None:
    lengths.sort()
    found = nearest(wanted, lengths)
    if wanted < 0:
        assert found == OWN_CHOICE
        return
    assert found in lengths
    assert found <= wanted or found == lengths[0]
    assert not [one for one in lengths if found < one <= wanted]


def test_caps_go_to_rows_that_are_there() -> None:
    told = decision(
        draft_length=5, capped=pack("I", [2, 9]), caps=pack("B", [0, 3]), draft_budget=7
    )
    order = drafts_as_decided(told, table_of(1, 2, 3), LENGTHS)
    assert order == DraftOrder(5, (("r2", 0),), 7)


def test_without_drafts_there_is_nothing_to_cap() -> None:
    told = decision(draft_length=0, capped=pack("I", [2]), caps=pack("B", [3]), draft_budget=7)
    assert drafts_as_decided(told, table_of(2), LENGTHS) == DraftOrder(0)


def test_standing_orders_go_by_the_size_of_the_batch() -> None:
    orders = [Band(4, -1, -1, 5), Band(16, -1, -1, 2), Band(64, -1, -1)]
    found = [drafts_by_orders(orders, rows, LENGTHS).length for rows in (1, 4, 5, 17, 100)]
    assert found == [5, 5, 1, OWN_CHOICE, OWN_CHOICE]
    assert drafts_by_orders([], 4, LENGTHS).length == OWN_CHOICE


class Link:
    """A controller whose newest decision is put in by hand."""

    def __init__(self) -> None:
        self.decision: Decision | None = None
        self.is_asking = True
        self.sent: list[Snapshot] = []

    def poll(self, now_s: float) -> None:
        """Nothing comes in."""

    def wait(self, step: int, longest_s: float) -> None:
        """Nothing comes in."""

    def ask(self, snapshot: Snapshot, now_s: float) -> bool:
        self.sent.append(snapshot)
        return True

    def keep_alive(self, now_s: float) -> None:
        """Nobody to lose."""

    def trouble(self) -> FallReason:
        return FallReason.NO_REPLY

    def close(self, reason: str) -> None:
        """Nothing to close."""


def observe(governor: EngineGovernor, table: RowTable, step: int) -> None:
    governor.observe(
        table,
        for_step=step,
        now_s=1.0,
        kv_used_tokens=0,
        kv_total_tokens=100,
        waiting_requests=0,
        waiting_prefill_tokens=0,
    )


def test_an_engine_that_drafts_asks_about_every_step() -> None:
    link = Link()
    governor = EngineGovernor(EngineConfig(), link, overlap=True, draft_lengths=LENGTHS)
    table = table_of(1, 2)
    table.records[0].note_drafts(5, 2)
    for step in range(1, 5):
        observe(governor, table, step)
    assert len(link.sent) == 4
    assert list(unpack("i", link.sent[-1].rows.draft_tokens)) == [5, 0]
    assert list(unpack("i", link.sent[-1].rows.accepted_tokens)) == [2, 0]


def test_the_ladder_holds_for_drafts() -> None:
    link = Link()
    governor = EngineGovernor(EngineConfig(), link, overlap=True, draft_lengths=LENGTHS)
    observe(governor, table_of(1, 2), 1)
    assert governor.plan(1, 1.0, busy=True) is None, "no decision: stock"
    link.decision = decision(1, draft_length=3)
    fresh = governor.plan(1, 1.0, busy=True)
    assert fresh is not None
    assert (fresh.park, fresh.drafts) == ((), DraftOrder(3))
    late = governor.plan(2, 1.0, busy=True)
    assert late is not None
    assert late.drafts == DraftOrder(1), "its standing orders"
    governor.decode_planned([], [], 1.0, vetoed=False)
    assert governor.tally.outcomes[Outcome.LATE.name.lower()] == 1
    stale = governor.plan(9, 1.0, busy=True)
    assert stale is None or stale.drafts.length == OWN_CHOICE


def test_an_engine_without_drafts_takes_no_orders_about_them() -> None:
    link = Link()
    governor = EngineGovernor(EngineConfig(), link, overlap=True)
    observe(governor, table_of(1, 2), 8)
    link.decision = decision(8, draft_length=3)
    assert governor.plan(8, 1.0, busy=True) is None
    assert not link.sent[0].rows.draft_tokens


def test_feedback_says_what_was_drafted_and_what_came_of_it() -> None:
    meter = StepMeter()
    meter.launched(LaunchedStep(4, StepKind.DECODE, 2, 100, 0, 1.0, draft_tokens=6, draft_length=3))
    meter.finished(4, 1.02, accepted_tokens=4)
    (feedback,) = meter.take_feedback()
    assert (feedback.draft_tokens, feedback.accepted_tokens, feedback.draft_length) == (6, 4, 3)
