"""No request that would have ended in time is ended because it was parked or held."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from governor_protos.messages import Decision, RowFlag, Snapshot
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting_requests import Request

from sglang_patch.apply.time_limits import MARGIN, TimeLimit, must_advance, must_enter
from sglang_patch.config import EngineConfig
from sglang_patch.deadlines import Deadlines
from sglang_patch.fallback import FallReason
from sglang_patch.governor import EngineGovernor
from sglang_patch.paces import Paces, StepTimes
from sglang_patch.queue import NOBODY, QueueTable
from sglang_patch.requests import ALONE, RequestTerms
from sglang_patch.rows import RowRecord, RowTable
from sglang_patch.seams import requests, time_limits
from sglang_patch.steps import LaunchedStep, StepKind

STEP_S = 0.01
PREFILL_S = 0.1


@settings(deadline=None)
@given(
    limit_s=st.floats(0.05, 0.5),
    most=st.integers(1, 60),
    share=st.floats(0.01, 1.0),
    times=st.lists(st.floats(0.1, MARGIN), min_size=1, max_size=20),
    wishes=st.lists(st.booleans(), min_size=1, max_size=50),
)
def test_a_row_that_would_have_ended_in_time_does_whatever_is_decided(
    limit_s: float, most: int, share: float, times: list[float], wishes: list[bool]
) -> None:
    """It is parked whenever that is wished for and allowed, and steps take up to ``MARGIN`` times
    what they are believed to take. It may end long before it has written all that it may."""
    tokens = max(1, int(most * share))

    def step_s(step: int) -> float:
        return STEP_S * times[step % len(times)]

    ends_in_time = sum(step_s(step) for step in range(tokens)) <= limit_s
    limit = TimeLimit(0.0, limit_s)
    now_s, written, step = 0.0, 0, 0
    looked_at = must_advance(limit, now_s, most, STEP_S)
    while written < tokens:
        advances = looked_at or not wishes[step % len(wishes)]
        looked_at = must_advance(limit, now_s, most - written, STEP_S)
        now_s += step_s(step)
        written += advances
        step += 1
    assert not ends_in_time or now_s <= limit_s + 1e-9


@settings(deadline=None)
@given(limit_s=st.floats(0.1, 60.0), queued_s=st.floats(0.0, 60.0), slower=st.floats(0.0, MARGIN))
def test_a_request_that_would_have_been_let_in_in_time_is(
    limit_s: float, queued_s: float, slower: float
) -> None:
    """Everybody is held for as long as that is allowed, and then prefilled."""
    if slower * queued_s > limit_s:
        return  # not in time without Governor either
    limit = TimeLimit(0.0, limit_s)
    held_s = next(
        age_s
        for age_s in (limit_s * part / 1000 for part in range(1001))
        if must_enter(limit, age_s, queued_s)
    )
    assert held_s + slower * queued_s <= limit_s + limit_s / 1000 or held_s == 0.0
    assert held_s <= limit_s / 2 + limit_s / 500


def test_the_worse_of_what_was_seen_is_believed() -> None:
    times = StepTimes()
    assert times.of(1) == float("inf")
    times.add(4, 1.0)
    assert times.of(1) == times.of(7) == 1.0
    assert times.of(8) == 2.0  # twice the rows, at most twice the time
    times.add(8, 1.5)
    assert (times.of(7), times.of(8)) == (1.0, 1.5)
    times.add(8, 3.0)
    assert times.of(15) == 3.0
    times.add(8, 1.0)
    assert 2.8 < times.of(15) < 3.0


def test_a_row_waits_for_the_prefill_between_its_steps_too() -> None:
    paces = Paces()
    paces.decoded(2, 0.01, idle_before=True)
    paces.prefilled(64, 0.5)
    assert paces.step_s(2) == 0.01
    paces.decoded(2, 0.01, idle_before=False)
    assert paces.step_s(2) == 0.51
    assert paces.prefill_s(64, 64) == 0.5
    assert paces.prefill_s(65, 64) == 1.0


class Link:
    """A controller that parks and holds all that it can."""

    is_asking = True

    def __init__(self) -> None:
        self.decision: Decision | None = None
        self.asked: Snapshot | None = None

    def poll(self, now_s: float) -> None: ...

    def wait(self, step: int, longest_s: float) -> None: ...

    def ask(self, snapshot: Snapshot, now_s: float) -> bool:
        self.asked = snapshot
        self.decision = Decision(
            snapshot.for_step,
            1,
            snapshot.rows.request_id,
            [],
            *("test", 0.0, 0.0, 0.0, 0.0),
            prefill_tokens=0,
        )
        return True

    def keep_alive(self, now_s: float) -> None: ...

    def trouble(self) -> FallReason:
        return FallReason.DISCONNECTED

    def close(self, reason: str) -> None: ...


class Engine:
    """Two branches with ten tokens to write run, and one request waits; steps take 10 ms."""

    def __init__(self, deadlines: Deadlines, *, prefill: bool = True) -> None:
        link: Any = Link()
        self.governor = EngineGovernor(
            EngineConfig(),
            link,
            overlap=True,
            prefill=prefill,
            retract=prefill,
            deadlines=deadlines,
        )
        self.sees_queue = prefill
        terms = RequestTerms("group", False, None, None)
        self.rows = [
            RowRecord(number, str(number), 1, terms, 0.0, max_new_tokens=10) for number in (1, 2)
        ]
        self.waits = RowRecord(3, "3", 0, ALONE, 0.0, prompt_tokens=8)
        for step, kind in enumerate((StepKind.PREFILL, StepKind.DECODE)):
            took_s = PREFILL_S if kind is StepKind.PREFILL else STEP_S
            launched = LaunchedStep(
                step=step,
                kind=kind,
                rows=2,
                context_tokens=9,
                prefill_tokens=8 if kind is StepKind.PREFILL else 0,
                launched_s=10.0 * step,
            )
            self.governor.launched(launched)
            self.governor.finished(step, launched.launched_s + took_s)

    def order(self, now_s: float, *, waiting: int = 1) -> Any:
        """What the step after the next does, and the flags of the rows that were told of."""
        self.table = RowTable(list(self.rows), [0, 0], [0, 0])
        self.governor.observe(
            self.table,
            for_step=5,
            now_s=now_s,
            kv_used_tokens=0,
            kv_total_tokens=9,
            waiting_requests=waiting,
            waiting_prefill_tokens=8,
            queue=QueueTable([self.waits], [0], [8], [0]) if self.sees_queue else NOBODY,
        )
        return self.governor.plan(5, now_s, busy=True)


def test_without_limits_rows_are_parked_and_requests_held() -> None:
    order = Engine(Deadlines()).order(1e6)
    assert (order.park, order.prefill.tokens) == (("2",), 0)


def test_a_row_near_its_limit_advances_and_the_controller_is_told_so() -> None:
    engine = Engine(Deadlines(running_s=10.0))
    engine.rows[1].runs = TimeLimit(100.0, 10.0)
    need_s = MARGIN * 12 * STEP_S
    assert engine.order(110.0 - 1.01 * need_s).park == ("2",)
    assert engine.order(110.0 - 0.99 * need_s).park == ()
    assert [bool(flag & RowFlag.PINNED) for flag in engine.table.flags] == [False, True]
    assert engine.governor.tally.hurried_steps == 0


def test_before_a_step_was_seen_no_row_with_a_limit_is_parked() -> None:
    paces = Paces()
    table = RowTable([RowRecord(1, "1", 0, ALONE, 0.0, max_new_tokens=1)], [0], [0])
    table.records[0].runs = TimeLimit(0.0, 1e6)
    Deadlines(running_s=1e6).pin(table, paces, 0.0)
    assert table.flags == [RowFlag.PINNED]


def test_nobody_is_held_or_parked_while_somebody_who_waits_is_near_a_limit() -> None:
    engine = Engine(Deadlines(waiting_s=4.0))
    engine.waits.waits = TimeLimit(100.0, 4.0)
    assert engine.order(101.9).prefill.tokens == 0
    assert engine.order(102.1) is None
    assert engine.governor.tally.hurried_steps == 1
    engine.waits.waits = TimeLimit(100.0, 0.19)  # its prefill alone takes 0.1 s
    assert engine.order(100.0) is None


def test_who_is_in_the_middle_of_a_prefill_must_still_write_its_answer_in_time() -> None:
    engine = Engine(Deadlines(running_s=10.0))
    engine.waits.max_new_tokens = 100
    engine.waits.runs = TimeLimit(100.0, 10.0)
    assert engine.order(107.0).prefill.tokens == 0
    assert engine.order(107.9) is None


def test_a_bounded_queue_is_not_filled_by_holding() -> None:
    """SGLang refuses whoever finds it full."""
    engine = Engine(Deadlines(queue_places=8))
    assert engine.order(100.0, waiting=3).prefill.tokens == 0
    assert engine.order(100.0, waiting=4) is None


def test_a_queue_that_is_longer_than_what_is_looked_at_is_not_held() -> None:
    engine = Engine(Deadlines(waiting_s=1e6))
    assert engine.order(100.0, waiting=2) is None


def test_an_engine_whose_queue_is_not_read_parks_nobody_while_somebody_waits_under_a_limit() -> (
    None
):
    """Parked rows keep their places and their memory for longer, and others wait for these."""
    limited = Engine(Deadlines(waiting_s=1e6), prefill=False)
    assert limited.order(100.0, waiting=0).park == ("2",)
    assert limited.order(100.0, waiting=1) is None
    bounded = Engine(Deadlines(queue_places=8), prefill=False)
    assert bounded.order(100.0, waiting=3).park == ("2",)
    assert bounded.order(100.0, waiting=4) is None
    assert Engine(Deadlines(), prefill=False).order(100.0, waiting=4).park == ("2",)


def test_sglangs_limits_are_read() -> None:
    from sglang.srt.environ import envs

    scheduler: Any = SimpleNamespace(max_queued_requests=None, chunked_prefill_size=None)
    with (
        envs.SGLANG_REQ_RUNNING_TIMEOUT.override(7),
        envs.SGLANG_REQ_WAITING_TIMEOUT.override(3),
    ):
        deadlines = time_limits.deadlines_of(scheduler)
    assert (deadlines.running_s, deadlines.waiting_s) == (7.0, 3.0)
    req: Any = Request("a")
    record = RowRecord(1, "a", 0, ALONE, 0.0)
    time_limits.note_running_limit(req, record, deadlines)
    time_limits.note_waiting_limit(req, record, deadlines)
    assert record.runs is record.waits is None
    req.time_stats.wait_queue_entry_time, req.time_stats.forward_entry_time = 1.0, 2.0
    time_limits.note_running_limit(req, record, deadlines)
    time_limits.note_waiting_limit(req, record, deadlines)
    assert record.runs == TimeLimit(2.0, 7.0)
    assert record.waits == TimeLimit(1.0, 3.0)
    assert time_limits.deadlines_of(scheduler).running_s == 0.0  # SGLang's default is -1


@pytest.mark.parametrize("timeout_s", [None, 5.0])
def test_a_session_with_a_time_limit_is_not_delayed(timeout_s: float | None) -> None:
    req: Any = Request("a")
    req.session = SimpleNamespace(timeout=timeout_s, last_active_time=time.monotonic())
    assert requests.may_park(req) == (timeout_s is None)
    record, deadlines = RowRecord(1, "a", 0, ALONE, 0.0), Deadlines(waiting_s=60.0)
    time_limits.note_session_limit(req, record, deadlines, 100.0)
    assert (record.waits is not None) == deadlines.of_clients == (timeout_s is not None)
    req.time_stats.wait_queue_entry_time = 100.0
    time_limits.note_waiting_limit(req, record, deadlines)
    assert record.waits is not None
    assert record.waits.end_s == pytest.approx(100.0 + (timeout_s or 60.0), abs=0.5)
