"""Step times as a user sees them."""

from __future__ import annotations

import pytest
from governor_protos.limits import MAX_FEEDBACK
from governor_protos.messages import Outcome, StepKind

from sglang_patch.steps import LaunchedStep, StepMeter


def launch(meter: StepMeter, step: int, at_s: float, kind: StepKind = StepKind.DECODE) -> None:
    meter.launched(LaunchedStep(step, kind, 4, 100, 0, at_s, parked_rows=2, outcome=Outcome.LATE))


def test_back_to_back_steps_are_measured_from_end_to_end() -> None:
    meter = StepMeter()
    launch(meter, 1, 0.0)
    launch(meter, 2, 0.5)  # overlap: launched while step 1 runs
    meter.finished(1, 1.0)
    meter.finished(2, 1.8)
    first, second = meter.take_feedback()
    assert (first.latency_s, second.latency_s) == (1.0, pytest.approx(0.8))
    assert (first.parked_rows, first.outcome) == (2, Outcome.LATE)
    assert meter.take_feedback() == []


def test_an_idle_gap_is_not_part_of_a_step() -> None:
    meter = StepMeter()
    launch(meter, 1, 0.0)
    meter.finished(1, 1.0)
    launch(meter, 2, 50.0)
    meter.finished(2, 50.25)
    assert meter.take_feedback()[1].latency_s == 0.25


def test_memory_is_bounded_when_results_never_come_or_feedback_is_never_taken() -> None:
    meter = StepMeter()
    for step in range(10 * MAX_FEEDBACK):
        launch(meter, step, float(step))
        if step % 2:
            meter.finished(step, step + 0.5)
    assert len(meter.take_feedback()) == MAX_FEEDBACK
    assert len(meter._in_flight) <= MAX_FEEDBACK
