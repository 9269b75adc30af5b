"""How long Governor holds a step: what was its own doing is told from what the machine did."""

from __future__ import annotations

import gc
import resource
import socket
import threading
import time
from types import SimpleNamespace

import pytest

from sglang_patch import holds
from sglang_patch.holds import LEAST_LIMIT_S, TOLERANCE, Hold, HoldMeter

MAX_WAIT_S = 0.05


@pytest.fixture
def told() -> list[Hold]:
    return []


@pytest.fixture
def meter(told: list[Hold]) -> HoldMeter:
    return HoldMeter(MAX_WAIT_S, told.append)


def compute(seconds: float) -> None:
    end_s = time.thread_time() + seconds
    while time.thread_time() < end_s:
        pass


def test_a_step_is_the_sum_of_its_stretches(meter: HoldMeter, told: list[Hold]) -> None:
    for _ in range(2):
        with meter:
            compute(0.01)
    meter.step_over()
    meter.step_over()  # of a step in which nothing was held nothing is told
    (hold,) = told
    assert hold.own_s >= 0.02
    assert hold.wall_s >= hold.own_s
    assert not hold.is_stalled


def test_what_governor_computes_is_its_own(meter: HoldMeter, told: list[Hold]) -> None:
    with meter:
        compute(TOLERANCE * MAX_WAIT_S + 0.01)
    meter.step_over()
    assert (told[0].is_stalled, told[0].is_disturbed) == (True, False)


def test_a_blocking_call_is_its_own_though_it_computes_nothing(
    meter: HoldMeter, told: list[Hold]
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, meter:
        timer = threading.Timer(2 * TOLERANCE * MAX_WAIT_S, lambda: theirs.send(b"x"))
        timer.start()
        ours.recv(1)
    timer.join()
    meter.step_over()
    assert told[0].is_stalled
    assert told[0].own_s == told[0].wall_s


def test_a_page_that_is_read_from_disk_first_is_the_machines_doing(
    meter: HoldMeter, told: list[Hold], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine short of memory the kernel blocks the thread wherever it touches such a page."""
    read = SimpleNamespace(pages=0)

    def getrusage(who: int) -> tuple[float, ...]:
        used = list(resource.getrusage(who))
        used[7] += read.pages
        return tuple(used)

    monkeypatch.setattr(holds, "getrusage", getrusage)
    with meter:
        time.sleep(2 * TOLERANCE * MAX_WAIT_S)  # stands for the disk
        read.pages += 1
    meter.step_over()
    with meter:
        time.sleep(2 * TOLERANCE * MAX_WAIT_S)  # in a stretch of its own nothing was read
    meter.step_over()
    assert [(hold.is_stalled, hold.is_disturbed) for hold in told] == [(False, True), (True, False)]
    assert told[0].own_s < MAX_WAIT_S < told[0].wall_s


def test_the_kernels_count_of_pages_read_is_where_it_is_looked_for() -> None:
    used = resource.getrusage(resource.RUSAGE_THREAD)
    assert used[holds._READ_IN] == used.ru_majflt
    assert used[holds._GIVEN_UP] == used.ru_nvcsw


def test_a_pause_counts_as_long_as_it_was_asked_for(meter: HoldMeter, told: list[Hold]) -> None:
    """A pause from which the machine wakes the thread late is the machine's doing."""
    with meter:
        meter.begin_wait()
        time.sleep(0.03)  # asked for a hundredth of it: the rest stands for a late wake-up
        meter.end_wait(1, 0.0003, 0.001)
    meter.step_over()
    assert (told[0].is_stalled, told[0].is_disturbed) == (False, True)
    assert told[0].wall_s >= 0.03


def test_a_wait_past_its_bound_is_a_stall_however_short(meter: HoldMeter, told: list[Hold]) -> None:
    with meter:
        meter.begin_wait()
        time.sleep(0.002)
        meter.end_wait(1, 0.002, 0.001)
    meter.step_over()
    assert told[0].is_stalled
    with meter:
        pass
    meter.step_over()
    assert not told[1].is_stalled  # each step is judged by itself


def test_without_a_wait_allowed_there_is_still_time_to_compute(told: list[Hold]) -> None:
    meter = HoldMeter(0.0, told.append)
    with meter:
        compute(LEAST_LIMIT_S / 10)
    meter.step_over()
    with meter:
        compute(2 * TOLERANCE * LEAST_LIMIT_S)
    meter.step_over()
    assert [hold.is_stalled for hold in told] == [False, True]


def test_what_sglang_carries_out_is_measured_and_not_judged(
    meter: HoldMeter, told: list[Hold]
) -> None:
    with meter.carrying_out:
        compute(TOLERANCE * MAX_WAIT_S + 0.01)
    meter.step_over()
    (hold,) = told
    assert hold.wall_s == hold.carried_out_s > TOLERANCE * MAX_WAIT_S
    assert (hold.own_s, hold.is_stalled, hold.is_disturbed) == (0.0, False, False)


def test_the_collector_is_left_out(meter: HoldMeter, told: list[Hold]) -> None:
    rubbish = [[number] for number in range(300_000)]
    meter.watch_collector()
    try:
        with meter:
            for _ in range(20):
                gc.collect()
        meter.step_over()
    finally:
        gc.callbacks.pop()
    del rubbish
    assert told[0].own_s < told[0].wall_s / 2
