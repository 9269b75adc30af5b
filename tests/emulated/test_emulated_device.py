"""The emulated device's time line, under a fake clock."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sglang_patch.emulated.device import EmulatedDevice

Launch = tuple[int, int, bool]
"""Whole seconds since the launch before (so that sums are exact), duration, follows."""

LAUNCHES = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.booleans()), min_size=1)


def run(launches: list[Launch]) -> tuple[EmulatedDevice, list[float], list[float]]:
    device, now_s = EmulatedDevice(), 1000.0
    starts, ends = [], []
    for gap_s, duration_s, follows in launches:
        now_s += gap_s
        starts.append(now_s)
        ends.append(device.enqueue(duration_s, now_s, follows=follows))
    return device, starts, ends


@given(LAUNCHES)
def test_steps_end_in_order_and_take_their_time(launches: list[Launch]) -> None:
    device, starts, ends = run(launches)
    assert all(a <= b for a, b in pairwise(ends))
    for start_s, end_s, (_, duration_s, _) in zip(starts, ends, launches, strict=True):
        assert end_s >= start_s + duration_s
    assert all(
        b >= a + duration_s
        for (a, b), (_, duration_s, _) in zip(pairwise(ends), launches[1:], strict=True)
    )
    assert device.steps == len(launches)
    assert device.end_s == ends[-1]


@given(LAUNCHES)
def test_all_time_is_counted_once(launches: list[Launch]) -> None:
    """From the first launch to the end, the device works, waits for the host, or has no work."""
    device, starts, ends = run(launches)
    no_work_s = sum(
        max(0.0, start_s - before_s)
        for before_s, start_s, (_, _, follows) in zip(ends, starts[1:], launches[1:], strict=False)
        if not follows
    )
    assert device.busy_s == sum(duration_s for _, duration_s, _ in launches)
    assert ends[-1] - starts[0] == device.busy_s + device.host_limited_s + no_work_s


def test_host_work_behind_a_running_step_costs_nothing() -> None:
    device = EmulatedDevice()
    device.enqueue(10, 100, follows=False)
    assert device.enqueue(10, 109, follows=True) == 120
    assert (device.host_limited_steps, device.host_limited_s) == (0, 0)


def test_a_late_launch_is_the_hosts_fault_only_if_there_was_work() -> None:
    device = EmulatedDevice()
    device.enqueue(10, 100, follows=False)
    assert device.enqueue(10, 113, follows=True) == 123
    assert (device.host_limited_steps, device.host_limited_s) == (1, 3)
    assert device.enqueue(10, 500, follows=False) == 510
    assert (device.host_limited_steps, device.host_limited_s) == (1, 3)


def test_the_first_step_of_all_waits_for_nothing() -> None:
    device = EmulatedDevice()
    assert device.enqueue(1, 7, follows=True) == 8
    assert device.host_limited_steps == 0
