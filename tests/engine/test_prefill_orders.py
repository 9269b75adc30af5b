"""Prefill on the engine side: orders within bounds, and asking while there is something to say."""

from __future__ import annotations

from governor_protos.columns import pack, unpack
from governor_protos.limits import MAX_QUEUED
from governor_protos.messages import Band, Decision, Outcome, Snapshot, StepKind
from hypothesis import given
from hypothesis import strategies as st

from sglang_patch.apply.prefill import (
    OWN_CHOICE,
    STOCK,
    PrefillOrder,
    budget_of,
    prefill_as_decided,
    prefill_by_orders,
)
from sglang_patch.config import EngineConfig
from sglang_patch.fallback import FallReason
from sglang_patch.governor import EngineGovernor
from sglang_patch.queue import QueuePacker, QueueTable
from sglang_patch.requests import RequestTerms
from sglang_patch.rows import FEW_GROUPS, Names, RowRecord, RowTable
from sglang_patch.steps import LaunchedStep

TERMS = RequestTerms("", False, None, None)._replace(ttft_slo_s=0.5)


def record(number: int) -> RowRecord:
    return RowRecord(number, f"r{number}", 0, TERMS, 0.0, prompt_tokens=64, max_new_tokens=50)


def queue_of(*numbers: int) -> QueueTable:
    count = len(numbers)
    return QueueTable([record(n) for n in numbers], [0] * count, [64] * count, [0] * count)


def decision(step: int = 1, **facts: object) -> Decision:
    plain = {"park": b"", "orders": [Band(64, -1, -1)], "policy": "adaptive_chunk"}
    times = dict.fromkeys(["predicted_step_s", "baseline_step_s", "budget_s", "slack_s"], 0.0)
    return Decision(for_step=step, lease_steps=4, **{**plain, **times, **facts})


@given(
    st.integers(-1, 20_000),
    st.integers(1, 8192),
    st.sampled_from([1, 16, 64]),
    st.integers(0, 600),
    st.booleans(),
)
def test_any_budget_comes_to_one_that_sglang_can_take(
    tokens: int, most: int, page: int, rows: int, can_decode: bool
) -> None:
    budget = budget_of(
        PrefillOrder(tokens),
        most_tokens=most,
        page_size=page,
        mixed_rows=rows,
        can_decode=can_decode,
    )
    if tokens < 0:
        assert budget == OWN_CHOICE
    elif tokens == 0:
        assert budget == (0 if can_decode else OWN_CHOICE)
    else:
        assert budget % page == 0
        assert budget >= page
        assert budget <= max(page, min(tokens, most - rows))


def test_names_of_those_who_have_left_are_passed_over() -> None:
    told = decision(prefill_tokens=512, prefill_first=pack("I", [3, 9, 1, 3]))
    assert prefill_as_decided(told, queue_of(1, 2, 3)) == PrefillOrder(512, ("r3", "r1"))


def test_a_decision_without_a_word_about_prefill_leaves_it_to_the_engine() -> None:
    assert prefill_as_decided(decision(), queue_of(1)) is STOCK
    assert prefill_by_orders(decision().orders, 3) is STOCK
    assert prefill_by_orders([], 3) is STOCK


def test_standing_orders_go_by_the_rows_of_the_batch() -> None:
    orders = [Band(4, -1, -1, prefill_tokens=2048), Band(64, -1, -1, prefill_tokens=512)]
    assert prefill_by_orders(orders, 4) == PrefillOrder(2048)
    assert prefill_by_orders(orders, 5) == PrefillOrder(512)
    assert prefill_by_orders(orders, 500) == PrefillOrder(512)


def test_a_queue_is_packed_up_to_the_limit_and_anew_when_it_changes() -> None:
    packer = QueuePacker()
    table = queue_of(*range(1, MAX_QUEUED + 50))
    first = packer.pack(table, 10.0)
    assert len(first) == MAX_QUEUED
    assert unpack("f", first.age_s)[0] == 10.0
    assert unpack("f", first.ttft_slo_s)[0] == 0.5
    again = packer.pack(QueueTable(table.records[1:3], [0, 0], [7, 8], [0, 0]), 11.0)
    assert list(unpack("I", again.request_id)) == [2, 3]
    assert list(unpack("i", again.missing_tokens)) == [7, 8]


class ScriptedLink:
    """Answers with what a test says."""

    def __init__(self) -> None:
        self.decision: Decision | None = None
        self.is_asking = True
        self.asked: list[Snapshot] = []

    def poll(self, now_s: float) -> None:
        pass

    def wait(self, step: int, longest_s: float) -> None:
        pass

    def ask(self, snapshot: Snapshot, now_s: float) -> bool:
        self.asked.append(snapshot)
        return True

    def keep_alive(self, now_s: float) -> None:
        pass

    def trouble(self) -> FallReason:
        return FallReason.NO_REPLY

    def close(self, reason: str) -> None:
        pass


def observe(governor: EngineGovernor, step: int, queue: QueueTable) -> None:
    rows = RowTable([record(100 + n) for n in range(3)], [0] * 3, [5] * 3)
    governor.observe(
        rows,
        for_step=step,
        now_s=1.0,
        kv_used_tokens=0,
        kv_total_tokens=1000,
        waiting_requests=len(queue.records),
        waiting_prefill_tokens=0,
        queue=queue,
    )


def test_a_fresh_decision_then_standing_orders_then_stock() -> None:
    link = ScriptedLink()
    governor = EngineGovernor(EngineConfig(), link, overlap=True, prefill=True)
    observe(governor, 1, queue_of(1, 2))
    link.decision = decision(
        1, prefill_tokens=256, prefill_first=pack("I", [2]), orders=[Band(64, -1, -1, -1, 512)]
    )
    order = governor.plan(1, 1.0, busy=True)
    assert order is not None
    assert order.prefill == PrefillOrder(256, ("r2",))
    late = governor.plan(3, 1.1, busy=True)
    assert late is not None
    assert late.prefill == PrefillOrder(512)
    assert governor.plan(6, 1.2, busy=True) is None


def test_it_is_asked_while_somebody_waits_or_prefill_is_told() -> None:
    link = ScriptedLink()
    governor = EngineGovernor(EngineConfig(), link, overlap=True, prefill=True)
    observe(governor, 1, QueueTable())
    assert not link.asked
    observe(governor, 2, queue_of(1))
    assert len(link.asked) == 1
    assert len(link.asked[0].queue) == 1
    link.decision = decision(2, prefill_tokens=0)
    observe(governor, 3, QueueTable())
    assert len(link.asked) == 2


def test_steps_of_prefill_are_counted_by_what_became_of_their_decision() -> None:
    link = ScriptedLink()
    governor = EngineGovernor(EngineConfig(), link, overlap=True, prefill=True)
    observe(governor, 1, queue_of(1))
    link.decision = decision(1, prefill_tokens=256)
    governor.plan(1, 1.0, busy=True)
    step = LaunchedStep(1, StepKind.PREFILL, 1, 64, 64, launched_s=1.0)
    governor.launched(step)
    assert step.outcome is Outcome.APPLIED
    assert governor.tally.outcomes == {"applied": 1}


def test_without_the_knob_nothing_is_told() -> None:
    link = ScriptedLink()
    governor = EngineGovernor(EngineConfig(), link, overlap=True)
    observe(governor, 1, QueueTable())
    link.decision = decision(1, prefill_tokens=0)
    assert governor.plan(1, 1.0, busy=True) is None


def test_a_controller_that_always_says_decode_starves_nobody() -> None:
    link = ScriptedLink()
    config = EngineConfig(max_held_steps=3)
    governor = EngineGovernor(config, link, overlap=True, prefill=True)
    told = []
    for step in range(1, 10):
        observe(governor, step, queue_of(1))
        link.decision = decision(step, prefill_tokens=0)
        order = governor.plan(step, 1.0, busy=True)
        told.append(OWN_CHOICE if order is None else order.prefill.tokens)
    assert told == [0, 0, 0, OWN_CHOICE, 0, 0, 0, OWN_CHOICE, 0]


def test_a_group_keeps_its_number_while_it_waits_and_loses_it_after() -> None:
    names = Names()
    first, _ = names.group("first")
    others = [names.group(f"other-{number}")[0] for number in range(3 * FEW_GROUPS)]
    names.keep_groups(iter([first, others[5]]))
    assert names.group("first")[0] == first
    assert names.group("other-5")[0] == others[5]
    assert names.group("other-6")[0] > others[-1]
