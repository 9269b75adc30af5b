"""One engine: decide its next step, then learn from what it reported.

``decide`` is the hot path: snapshot in, reply out. ``settle`` is everything that can wait until
the reply is on its way: feedback, records, refits, standing orders.
"""

from __future__ import annotations

from collections import deque

from governor_protos import encode
from governor_protos.limits import MAX_DURATION_S
from governor_protos.messages import Band, Decision, Hello, Snapshot, StepFeedback, StepKind

from controller_service.observe.stats import OutcomeCounts
from controller_service.orders import one_band
from controller_service.policies.base import BranchPlan, Policy
from controller_service.predictors.base import LEAST_LATENCY_S, StepLatencyPredictor, StepSample
from controller_service.prefill_share import PrefillShare
from controller_service.records import DecisionRecord, StepLog
from controller_service.replanning import Planner
from controller_service.state import StepState

ORDERS_EVERY = 16
"""Decisions for which a table of standing orders is good, unless policy or predictor change."""

RECENT = 512
"""Turnarounds and prediction errors behind the figures in ``status``."""


class EngineSession:
    """What the controller knows of one engine."""

    def __init__(
        self,
        hello: Hello,
        predictor: StepLatencyPredictor,
        lease_steps: int,
        replan_steps: int = 1,
    ) -> None:
        self.hello = hello
        self.predictor = predictor
        self.log = StepLog()
        self.rows = 0
        self.last_latency_s = 0.0
        self.outcomes = OutcomeCounts()
        self.turnarounds_s: deque[float] = deque(maxlen=RECENT)
        self.errors: deque[float] = deque(maxlen=RECENT)
        """|predicted / measured - 1| of recent decode steps, each predicted before it was learnt
        from."""
        self._lease_steps = lease_steps
        self._planner = Planner(replan_steps)
        self._prefill_share = PrefillShare()
        self._orders: list[Band] = one_band(hello.max_running_requests)
        self._orders_for: tuple[Policy | None, int] = (None, -1)
        self._orders_age = 0
        self._unsettled: tuple[StepState, Policy, BranchPlan, int] | None = None

    def decide(self, snapshot: Snapshot, policy: Policy) -> bytes:
        """The reply to ``snapshot``.

        Raises:
            BadRows: a column holds a value that no engine can mean.
            PolicyFailed: the policy raised, or returned nonsense.
        """
        state = StepState.from_snapshot(snapshot, self._prefill_share.per_token_s)
        plan = self._planner.plan(state, policy, self.predictor)
        # The one place that turns a plan into parked rows, and so the one that keeps the promise:
        # nothing but a row that the engine offered for parking is ever parked.
        park = state.request_id[plan.park & state.parkable]
        if policy is not self._orders_for[0]:
            self._renew_orders(state, policy)
        reply = encode(
            Decision(
                for_step=snapshot.for_step,
                lease_steps=self._lease_steps,
                park=park.tobytes(),
                orders=self._orders,
                policy=policy.label,
                predicted_step_s=_duration(plan.predicted_step_s),
                baseline_step_s=_duration(plan.baseline_step_s),
                budget_s=_duration(plan.budget_s),
                slack_s=_signed(plan.slack_s),
            )
        )
        self._unsettled = (state, policy, plan, len(park))
        return reply

    def settle(self, snapshot: Snapshot, now_s: float) -> None:
        """Learn from ``snapshot``'s feedback and prepare for the next decision.

        Raises:
            PolicyFailed: the policy could not make standing orders.
        """
        for feedback in snapshot.feedback:
            self._learn(feedback)
        if self.predictor.refit_due(now_s):
            self.predictor.refit(now_s)
        if self._unsettled is None:
            return
        state, policy, plan, parked = self._unsettled
        self._unsettled = None
        self.rows = state.running_rows
        self.log.decided(_record(state, policy, plan, parked))
        self._orders_age += 1
        stale = self._orders_for != (policy, self.predictor.version)
        if stale or self._orders_age >= ORDERS_EVERY:
            self._renew_orders(state, policy)

    def _learn(self, feedback: StepFeedback) -> None:
        self.log.finished(feedback)
        self.outcomes.add(feedback.outcome)
        self._prefill_share.add(feedback)
        if feedback.kind > StepKind.MIXED or not feedback.latency_s >= LEAST_LATENCY_S:
            return
        if feedback.kind == StepKind.DECODE and not feedback.prefill_tokens:
            self.last_latency_s = feedback.latency_s
            if self.predictor.fitted:
                predicted = self.predictor.predict(feedback.rows, feedback.context_tokens)
                self.errors.append(abs(predicted / feedback.latency_s - 1.0))
        elif not feedback.prefill_tokens:
            return  # a prefill step that says nothing of how much it prefilled
        self.predictor.observe(
            StepSample(
                feedback.rows,
                feedback.context_tokens,
                feedback.prefill_tokens,
                feedback.latency_s,
            )
        )

    def _renew_orders(self, state: StepState, policy: Policy) -> None:
        self._orders = policy.standing_orders(
            state, self.predictor, self.hello.max_running_requests
        )
        self._orders_for = (policy, self.predictor.version)
        self._orders_age = 0


def _record(state: StepState, policy: Policy, plan: BranchPlan, parked: int) -> DecisionRecord:
    return DecisionRecord(
        state.for_step,
        policy.label,
        state.running_rows,
        state.running_rows - state.parkable_rows,
        state.parkable_rows - parked,
        parked,
        _duration(plan.predicted_step_s),
        _duration(plan.baseline_step_s),
        _duration(plan.budget_s),
        _signed(plan.slack_s),
    )


def _duration(seconds: float) -> float:
    """Within the contract's bounds; 0 for what is not a number."""
    if seconds <= MAX_DURATION_S:
        return max(0.0, float(seconds))
    return MAX_DURATION_S if seconds > MAX_DURATION_S else 0.0


def _signed(seconds: float) -> float:
    return _duration(seconds) if seconds >= 0 else -_duration(-seconds)
