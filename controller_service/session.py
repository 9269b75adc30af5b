"""One engine: decide its next step, then learn from what it reported.

``decide`` is the hot path: snapshot in, reply out. ``settle`` is everything that can wait until
the reply is on its way: feedback, records, refits, standing orders.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from governor_protos import encode
from governor_protos.limits import MAX_DRAFT_PRICE, MAX_DURATION_S
from governor_protos.messages import Band, Decision, Hello, Snapshot, StepFeedback, StepKind

from controller_service.groups import Index
from controller_service.observe.stats import OutcomeCounts
from controller_service.orders import one_band
from controller_service.policies.base import OWN_CHOICE, Knob, Policy, StepPlan
from controller_service.predictors.base import (
    LEAST_LATENCY_S,
    NO_DRAFTING,
    StepLatencyPredictor,
    StepSample,
)
from controller_service.prefill.leeway import Leeway
from controller_service.prefill.queue import KNOB as PREFILL_KNOB
from controller_service.prefill.queue import PrefillState
from controller_service.prefill_share import PrefillShare
from controller_service.records import DecisionRecord, Expectation, StepLog
from controller_service.replanning import Planner
from controller_service.retraction import rows_to_retract
from controller_service.service.session import ServiceSession
from controller_service.speculation.session import draft_session
from controller_service.state import StepState
from controller_service.unmet import Unmet

if TYPE_CHECKING:
    from controller_service.learning.acceptance import AcceptanceModel
    from controller_service.logbook.book import EngineLog  # pyarrow is loaded only to keep a log
    from controller_service.service.fits import LengthFits

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
        journal: EngineLog | None = None,
        acceptance: AcceptanceModel | None = None,
        length_fits: LengthFits | None = None,
    ) -> None:
        """
        Args:
            journal: where finished steps and requests are written down; nowhere by default.
            acceptance: how often drafts of earlier requests were right.
            length_fits: where trees for output lengths are fitted; None: nowhere.
        """
        self.hello = hello
        self.predictor = predictor
        self._journal = journal
        self.log = StepLog()
        self.unmet: tuple[Unmet, ...] = ()
        """What the policy that runs decides and this engine cannot carry out."""
        self.rows = 0
        self.last_latency_s = 0.0
        self.outcomes = OutcomeCounts()
        self.turnarounds_s: deque[float] = deque(maxlen=RECENT)
        self.errors: deque[float] = deque(maxlen=RECENT)
        """|predicted / measured - 1| of recent decode steps, each predicted before it was learnt
        from."""
        self.covered: deque[bool] = deque(maxlen=RECENT)
        """Whether each of them stayed below its predicted 90th percentile."""
        self._lease_steps = lease_steps
        self._planner = Planner(replan_steps)
        self._prefill_share = PrefillShare()
        self._drafts = draft_session(hello, acceptance)
        self._can_prefill = PREFILL_KNOB in hello.knobs and hello.chunked_prefill_tokens > 0
        self._prefills_in_a_row = 0
        self._step_s = 0.0
        self._leeway = Leeway()
        self._service = ServiceSession(hello, length_fits)
        self._caps_default = 0
        if self._drafts is not None and hello.drafting is not None and hello.drafting.width > 1:
            self._caps_default = hello.drafting.most_tokens
        self._orders: list[Band] = one_band(hello.max_running_requests)
        self._orders_for: tuple[Policy | None, int] = (None, -1)
        self._orders_age = 0
        self._unsettled: tuple[StepState, Policy, StepPlan, int, int] | None = None

    def decide(self, snapshot: Snapshot, policy: Policy) -> bytes:
        """The reply to ``snapshot``.

        Raises:
            BadColumn: a column holds a value that no engine can mean.
            PolicyFailed: the policy raised, or returned nonsense.
        """
        drafts = None if self._drafts is None else self._drafts.state(snapshot)
        queue = None
        if self._can_prefill:
            queue = PrefillState.from_queue(
                snapshot.queue,
                self.hello,
                self._prefills_in_a_row,
                self._step_s if self.hello.overlap else 0.0,
                self._leeway.share,
            )
        state = StepState.from_snapshot(snapshot, self._prefill_share.per_token_s, drafts, queue)
        if policy.decides(Knob.ORDER):
            service = self._service.state(state, queue)
            state = msgspec.structs.replace(state, service=service)
        plan = self._planner.plan(state, policy, self.predictor)
        # The one place that turns a plan into parked rows, and so the one that keeps the promise:
        # nothing but a row that the engine offered for parking is ever parked.
        park = state.request_id[plan.park & state.parkable]
        if policy is not self._orders_for[0]:
            self._renew_orders(state, policy)
        length, capped, caps = self._draft_orders(state, plan)
        if self._drafts is not None:
            self._drafts.decided(snapshot.for_step, capped, caps)
        tokens, first = self._prefill_orders(plan, queue)
        # Nearly always nobody's, and then there is nothing to mask.
        retract = None if plan.order is None else rows_to_retract(state, plan)
        reply = encode(
            Decision(
                for_step=snapshot.for_step,
                lease_steps=self._lease_steps,
                park=park.tobytes(),
                orders=self._orders,
                policy=policy.label,
                predicted_step_s=_predicted_s(plan),
                baseline_step_s=_duration(plan.baseline_step_s),
                budget_s=_duration(plan.budget_s),
                slack_s=_signed(plan.slack_s),
                draft_length=length,
                capped=capped,
                caps=caps,
                draft_budget=_budget(plan),
                draft_price=_price(plan),
                prefill_tokens=tokens,
                prefill_first=first,
                retract=b"" if retract is None else state.request_id[retract].tobytes(),
            )
        )
        retracted = 0 if retract is None else int(np.count_nonzero(retract))
        self._unsettled = (state, policy, plan, len(park), retracted)
        if self._drafts is not None:
            self._drafts.planned(None if plan.drafts is None else plan.drafts.given)
        return reply

    def _draft_orders(self, state: StepState, plan: StepPlan) -> tuple[int, bytes, bytes]:
        """What a decision says of drafts: their length, who may have fewer, and how many."""
        drafts = plan.drafts
        if drafts is None:
            return OWN_CHOICE, b"", b""
        if drafts.length != self._orders[0].draft_tokens:
            # A late decision keeps the newest length: it suits the batch better than none.
            self._orders = [
                msgspec.structs.replace(band, draft_tokens=drafts.length) for band in self._orders
            ]
        if drafts.caps is None or not drafts.length:
            return drafts.length, b"", b""
        fewer = drafts.caps < (self._caps_default or drafts.length)
        return drafts.length, state.request_id[fewer].tobytes(), drafts.caps[fewer].tobytes()

    def _prefill_orders(self, plan: StepPlan, queue: PrefillState | None) -> tuple[int, bytes]:
        """What a decision says of prefill: how much, and whose first."""
        prefill = plan.prefill
        if queue is None:
            return OWN_CHOICE, b""
        order = None if plan.order is None else plan.order.first
        if prefill is None:
            return OWN_CHOICE, _named(queue, order)
        if prefill.late_tokens != self._orders[0].prefill_tokens:
            self._orders = [
                msgspec.structs.replace(band, prefill_tokens=prefill.late_tokens)
                for band in self._orders
            ]
        told = bool(prefill.tokens and queue.waiting)
        self._prefills_in_a_row = self._prefills_in_a_row + 1 if told else 0
        self._step_s = prefill.predicted_step_s if told else _predicted_s(plan)
        # Deadlines bind first: a part for prefill that names an order has it.
        first = order if prefill.first is None else prefill.first
        return prefill.tokens, _named(queue, first)

    def settle(self, snapshot: Snapshot, now_s: float) -> None:
        """Learn from ``snapshot``'s feedback and prepare for the next decision.

        Raises:
            PolicyFailed: the policy could not make standing orders.
        """
        decided_by_version = self.predictor.version
        for feedback in snapshot.feedback:
            self._learn(feedback, now_s)
        if self._journal is not None:
            for end in snapshot.ended:
                self._journal.end(end, now_s)
        if self.predictor.refit_due(now_s):
            self.predictor.refit(now_s)
        if self._drafts is not None:
            self._drafts.settle(self.predictor)
        self._service.settle(snapshot)
        if self._unsettled is None:
            return
        state, policy, plan, parked, retracted = self._unsettled
        self._unsettled = None
        if state.prefill is not None:
            self._leeway.observe(state)
        self.rows = state.running_rows
        self.log.decided(_record(state, policy, plan, parked, retracted, decided_by_version))
        self._orders_age += 1
        stale = self._orders_for != (policy, self.predictor.version)
        if stale or self._orders_age >= ORDERS_EVERY:
            self._renew_orders(state, policy)

    def _learn(self, feedback: StepFeedback, now_s: float) -> None:
        expectation = self._expect(feedback)
        record = self.log.finished(feedback, expectation)
        if self._journal is not None:
            self._journal.step(record, now_s)
        self.outcomes.add(feedback.outcome)
        self._prefill_share.add(feedback)
        if feedback.kind > StepKind.MIXED or not feedback.latency_s >= LEAST_LATENCY_S:
            return
        if feedback.kind == StepKind.DECODE and not feedback.prefill_tokens:
            self.last_latency_s = feedback.latency_s
            if expectation.expected_s:
                self.errors.append(abs(expectation.expected_s / feedback.latency_s - 1.0))
                self.covered.append(feedback.latency_s <= expectation.expected_p90_s)
        elif not feedback.prefill_tokens:
            return  # a prefill step that says nothing of how much it prefilled
        drafting_s = self._drafting_s(feedback)
        drafting = NO_DRAFTING if self._drafts is None else self._drafts.drafting
        if self._drafts is not None and not feedback.prefill_tokens:
            self._drafts.observe(feedback)
        self.predictor.observe(
            StepSample(
                feedback.rows,
                feedback.context_tokens,
                feedback.prefill_tokens,
                max(feedback.latency_s - drafting_s, LEAST_LATENCY_S),
                feedback.draft_tokens,
                feedback.draft_length,
                drafting,
            )
        )

    def _expect(self, feedback: StepFeedback) -> Expectation:
        """What the predictor says of a step that has run; it has not learnt from it yet."""
        predictor = self.predictor
        mean_s = p90_s = 0.0
        # A prefill step that does not say how much it prefilled has no shape to ask about.
        if predictor.fitted and (feedback.kind == StepKind.DECODE or feedback.prefill_tokens):
            shape = (
                float(feedback.rows),
                float(feedback.context_tokens),
                float(feedback.prefill_tokens),
                float(feedback.draft_tokens),
            )
            drafting_s = self._drafting_s(feedback)
            mean_s = _duration(predictor.predict(*shape) + drafting_s)
            p90_s = _duration(predictor.predict_p90(*shape) + drafting_s)
        model_id = getattr(predictor, "model_id", "")
        return Expectation(mean_s, p90_s, predictor.name, predictor.version, model_id)

    def _drafting_s(self, feedback: StepFeedback) -> float:
        """What its draft steps are taken to have cost; predictors know only what verifies."""
        if self._drafts is None:
            return 0.0
        return self._drafts.drafting.seconds(
            feedback.draft_length, feedback.rows, feedback.draft_tokens
        )

    def _renew_orders(self, state: StepState, policy: Policy) -> None:
        self._orders = policy.standing_orders(
            state, self.predictor, self.hello.max_running_requests
        )
        self._orders_for = (policy, self.predictor.version)
        self._orders_age = 0


def _record(
    state: StepState,
    policy: Policy,
    plan: StepPlan,
    parked: int,
    retracted: int,
    predictor_version: int,
) -> DecisionRecord:
    return DecisionRecord(
        state.for_step,
        policy.label,
        state.running_rows,
        state.running_rows - state.parkable_rows,
        state.parkable_rows - parked,
        parked,
        _predicted_s(plan),
        _duration(plan.baseline_step_s),
        _duration(plan.budget_s),
        _signed(plan.slack_s),
        predictor_version,
        state.kv_used_tokens,
        state.kv_total_tokens,
        state.waiting_requests,
        state.waiting_prefill_tokens,
        retracted,
    )


def _named(queue: PrefillState, first: Index | None) -> bytes:
    return b"" if first is None else queue.request_id[first].tobytes()


def _budget(plan: StepPlan) -> int:
    drafts = plan.drafts
    return drafts.most_tokens if drafts is not None and drafts.shares_out else OWN_CHOICE


def _price(plan: StepPlan) -> float:
    drafts = plan.drafts
    if drafts is None or not drafts.shares_out:
        return 0.0
    return min(max(0.0, drafts.price), MAX_DRAFT_PRICE)


def _predicted_s(plan: StepPlan) -> float:
    """Of the step as it will run, with what it drafts."""
    drafted_s = 0.0 if plan.drafts is None else plan.drafts.predicted_step_s
    return _duration(drafted_s or plan.predicted_step_s)


def _duration(seconds: float) -> float:
    """Within the contract's bounds; 0 for what is not a number."""
    if seconds <= MAX_DURATION_S:
        return max(0.0, float(seconds))
    return MAX_DURATION_S if seconds > MAX_DURATION_S else 0.0


def _signed(seconds: float) -> float:
    return _duration(seconds) if seconds >= 0 else -_duration(-seconds)
