"""What is remembered of each step: what was decided, and what became of it."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

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
    predictor_version: int = 0
    """The predictor's version as it decided."""
    kv_used_tokens: int = 0
    kv_total_tokens: int = 0
    waiting_requests: int = 0
    waiting_prefill_tokens: int = 0
    retracted_rows: int = 0
    """Rows that were to give up their memory for others."""


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
    draft_tokens: int = 0
    """Draft tokens verified, over all rows."""
    draft_length: int = 0
    """Draft steps before the verification."""
    accepted_tokens: int = 0
    expected_s: float = 0.0
    """What the predictor said of the very shape that ran, before it learnt from it; 0: nothing."""
    expected_p90_s: float = 0.0
    """Likewise, the latency that one step in ten was to exceed."""
    predictor: str = ""
    predictor_version: int = 0
    model_id: str = ""
    """The fitted model behind the prediction; empty if there is none."""


class Expectation(NamedTuple):
    """What the predictor said of a step that has run, before it learnt from it."""

    expected_s: float = 0.0
    expected_p90_s: float = 0.0
    predictor: str = ""
    predictor_version: int = 0
    model_id: str = ""


NOTHING_EXPECTED = Expectation()


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

    def finished(
        self, feedback: StepFeedback, expectation: Expectation = NOTHING_EXPECTED
    ) -> StepRecord:
        """Join ``feedback`` with the decision that was made for its step."""
        self.steps_seen += 1
        record = StepRecord(
            feedback.step,
            feedback.kind,
            feedback.outcome,
            feedback.rows,
            feedback.context_tokens,
            feedback.prefill_tokens,
            feedback.parked_rows,
            feedback.latency_s,
            self._pending.pop(feedback.step, None),
            feedback.draft_tokens,
            feedback.draft_length,
            feedback.accepted_tokens,
            *expectation,
        )
        self._steps.append(record)
        return record

    def last(self, count: int) -> list[StepRecord]:
        """The newest ``count`` steps, oldest first."""
        start = max(0, len(self._steps) - count)
        return [self._steps[index] for index in range(start, len(self._steps))]
