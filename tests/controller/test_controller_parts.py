"""Small parts: bounded logs, calls onto the loop, the token bucket."""

from __future__ import annotations

import select
import threading

import pytest
from controller_builders import feedback_of

from controller_service.loop_calls import LoopCalls
from controller_service.observe.stats import Histogram
from controller_service.records import PENDING_DECISIONS, STEPS_KEPT, DecisionRecord, StepLog
from controller_service.throttle import Throttle


def decision(step):
    return DecisionRecord(step, "off", 4, 1, 3, 0, 0.0, 0.0, 0.0, 0.0)


def test_the_step_log_is_bounded():
    log = StepLog()
    for step in range(STEPS_KEPT + 100):
        log.finished(feedback_of(step))
    assert log.steps_seen == STEPS_KEPT + 100
    assert len(log.last(STEPS_KEPT * 2)) == STEPS_KEPT
    assert [step.step for step in log.last(2)] == [STEPS_KEPT + 98, STEPS_KEPT + 99]


def test_decisions_without_feedback_are_forgotten_oldest_first():
    log = StepLog()
    for step in range(PENDING_DECISIONS + 1):
        log.decided(decision(step))
    log.finished(feedback_of(0))
    log.finished(feedback_of(1))
    assert [step.decision and step.decision.step for step in log.last(2)] == [None, 1]


def test_calls_run_on_the_loops_thread_and_bring_their_result_or_error():
    calls = LoopCalls()
    where = calls.submit(threading.get_ident)
    wrong = calls.submit(lambda: 1 // 0)
    more = [calls.submit(lambda: None) for _ in range(100)]
    turns = 0
    while select.select([calls], [], [], 0)[0]:
        calls.run()
        turns += 1
    assert where.result(0) == threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        wrong.result(0)
    assert all(call.done() for call in more)
    assert turns > 1
    calls.close()


def test_a_cancelled_call_is_not_run():
    calls, ran = LoopCalls(), []
    assert calls.submit(lambda: ran.append(1)).cancel()
    calls.run()
    assert ran == []
    calls.close()


def test_waking_a_loop_that_does_not_turn_never_blocks():
    calls = LoopCalls()
    for _ in range(100_000):
        calls.wake()
    calls.close()


def test_the_throttle_refills_with_time():
    throttle = Throttle(2.0)
    assert [throttle.allows(10.0) for _ in range(3)] == [True, True, False]
    assert throttle.allows(10.5)
    assert not throttle.allows(10.5)


def test_histogram_buckets_include_their_bound():
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.add(value)
    assert (histogram.counts, histogram.total) == ([2, 1, 1], 12.0)
