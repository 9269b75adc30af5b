"""What is remembered of each step: what was decided, and what became of it."""

from __future__ import annotations

from collections import deque

import msgspec
from governor_protos.messages import StepFeedback

PENDING_DECISIONS = 128
STEPS_KEPT = 4096


class DecisionRecord(msgspec.Struct, frozen=True, gc=False):
    """One decision as it was sent."""

    step: int
    policy: str
    rows: int
    """Rows of the step, parked ones included, those in prefill not."""
    mandatory_rows: int
    extra_rows: int
    """Opportunistic rows that may advance."""
    parked_rows: int
    predicted_step_s: float
    baseline_step_s: float
    budget_s: float
    slack_s: float


class StepRecord(msgspec.Struct, frozen=True, gc=False):
    """One finished step, with the decision that was made for it if there was one."""

    step: int
    kind: int
    outcome: int
    rows: int
    context_tokens: int
    prefill_tokens: int
    parked_rows: int
    latency_s: float
    decision: DecisionRecord | None


class StepLog:
    """Joins decisions with the feedback on their steps; bounded both ways."""

    def __init__(self) -> None:
        self._pending: dict[int, DecisionRecord] = {}  # oldest first
        self._steps: deque[StepRecord] = deque(maxlen=STEPS_KEPT)
        self.steps_seen = 0

    def decided(self, record: DecisionRecord) -> None:
        self._pending[record.step] = record
        if len(self._pending) > PENDING_DECISIONS:
            del self._pending[next(iter(self._pending))]

    def finished(self, feedback: StepFeedback) -> None:
        self.steps_seen += 1
        self._steps.append(
            StepRecord(
                feedback.step,
                feedback.kind,
                feedback.outcome,
                feedback.rows,
                feedback.context_tokens,
                feedback.prefill_tokens,
                feedback.parked_rows,
                feedback.latency_s,
                self._pending.pop(feedback.step, None),
            )
        )

    def last(self, count: int) -> list[StepRecord]:
        """The newest ``count`` steps, oldest first."""
        start = max(0, len(self._steps) - count)
        return [self._steps[index] for index in range(start, len(self._steps))]
