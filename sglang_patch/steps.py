"""Measuring steps: what ran, how long it took, and what became of its decision."""

from __future__ import annotations

from dataclasses import dataclass

from governor_protos.limits import MAX_COUNT, MAX_DURATION_S, MAX_FEEDBACK
from governor_protos.messages import Outcome, StepFeedback, StepKind

from sglang_patch.paces import Paces

MAX_IN_FLIGHT = 64
IDLE_GAP_S = 1e-3
"""A step launched this long after the one before ended started on an idle engine."""
MEMORY = 0.2
"""Weight of the newest step in the moving average of the step time."""


@dataclass(slots=True)
class LaunchedStep:
    """A step that the device works on."""

    step: int
    kind: StepKind
    rows: int
    context_tokens: int
    prefill_tokens: int
    launched_s: float
    parked_rows: int = 0
    outcome: Outcome = Outcome.UNGOVERNED
    draft_tokens: int = 0
    """Draft tokens verified beyond the one token of each row, summed."""
    draft_length: int = 0
    """Draft steps before it."""


class StepMeter:
    """Turns launches and completions into feedback.

    The time of a step is the interval between the completions of the step before and of this one,
    which is what a user waits between two tokens. After an idle gap it is completion minus launch.
    """

    def __init__(self) -> None:
        self._in_flight: dict[int, LaunchedStep] = {}
        self._last_end_s = -1.0
        self._done: list[StepFeedback] = []
        self.decode_step_s = 0.0
        """Moving average of decode steps; 0 before the first."""
        self.paces = Paces()

    def launched(self, step: LaunchedStep) -> None:
        self._in_flight[step.step] = step
        if len(self._in_flight) > MAX_IN_FLIGHT:
            self._in_flight.pop(next(iter(self._in_flight)))

    def finished(self, step_number: int, now_s: float, accepted_tokens: int = 0) -> None:
        """Results are in.

        Args:
            accepted_tokens: draft tokens that were accepted, summed over the rows.
        """
        step = self._in_flight.pop(step_number, None)
        last_end_s, self._last_end_s = self._last_end_s, now_s
        if step is None:
            return
        idle_before = last_end_s < 0 or step.launched_s - last_end_s > IDLE_GAP_S
        latency_s = now_s - (step.launched_s if idle_before else last_end_s)
        if step.kind is StepKind.DECODE:
            old = self.decode_step_s or latency_s
            self.decode_step_s = old + MEMORY * (latency_s - old)
        if step.kind is StepKind.PREFILL:
            self.paces.prefilled(step.prefill_tokens, latency_s)
        else:
            self.paces.decoded(step.rows, latency_s, idle_before=idle_before)
        self._done.append(
            StepFeedback(
                step=step.step,
                kind=step.kind.value,
                rows=step.rows,
                context_tokens=min(step.context_tokens, MAX_COUNT),
                prefill_tokens=min(step.prefill_tokens, MAX_COUNT),
                latency_s=min(max(latency_s, 0.0), MAX_DURATION_S),
                outcome=step.outcome.value,
                parked_rows=step.parked_rows,
                draft_tokens=min(step.draft_tokens, MAX_COUNT),
                accepted_tokens=min(accepted_tokens, MAX_COUNT),
                draft_length=min(step.draft_length, MAX_COUNT),
            )
        )
        if len(self._done) > MAX_FEEDBACK:
            del self._done[0]

    def take_feedback(self) -> list[StepFeedback]:
        """Feedback on the steps that finished since the last call, oldest first."""
        done, self._done = self._done, []
        return done
