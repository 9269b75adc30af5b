"""What a policy is: a function from a batch to a plan, with a name and a config."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import msgspec
import numpy as np
from governor_protos.limits import MAX_BANDS, MAX_COUNT
from governor_protos.messages import Band

from controller_service.columns import U1, Mask
from controller_service.groups import Index
from controller_service.orders import OrdersRule, every_row_advances
from controller_service.predictors.base import Floats, StepLatencyPredictor
from controller_service.predictors.riding import riding
from controller_service.prefill.queue import PrefillState
from controller_service.state import StepState

OWN_CHOICE = -1
"""A draft length or a prefill budget that leaves it to the engine."""


class Knob(StrEnum):
    """What a policy decides."""

    ORDER = "order"
    """Who waits behind whom, and who yields the memory or the place that another waits for."""
    PREFILL = "prefill"
    """How many prompt tokens the step prefills, and whose first."""
    BRANCHES = "branches"
    """Which rows sit the step out."""
    DRAFTS = "drafts"
    """How many tokens are drafted, and for whom, out of what time the rows leave."""


class OrderPlan(msgspec.Struct, frozen=True, eq=False):
    """Who is served before whom."""

    first: Index | None = None
    """Indices into the queue: who goes first, in this order; None: the engine's own."""
    retract: Mask | None = None
    """Rows whose memory is freed, shape ``(rows,)``. Marks on rows that may not be retracted are
    ignored; None: nobody's."""


class DraftPlan(msgspec.Struct, frozen=True, eq=False):
    """How much one step drafts."""

    length: int = OWN_CHOICE
    """Draft steps, one of the engine's lengths; 0: none; ``OWN_CHOICE``: whatever it likes."""
    caps: U1 | None = None
    """Draft tokens that may be verified for each row, shape ``(rows,)``; None: as many as the
    length allows. Entries of rows that sit out mean nothing."""
    draft_tokens: int = 0
    """Draft tokens to be verified, summed over the rows."""
    shares_out: bool = False
    """The engine is to spend up to ``most_tokens`` over all rows by its draft's own chances; for
    engines that can."""
    given: Floats | None = None
    """Tokens that each row can expect of the step then, shape ``(rows,)``."""
    most_tokens: int = 0
    price: float = 0.0
    """What a node must be worth to be verified then; see ``Decision.draft_price``."""
    expected_tokens: float = 0.0
    """Tokens that the step is expected to give."""
    predicted_step_s: float = 0.0
    """Predicted latency of the step, drafting included."""


class PrefillPlan(msgspec.Struct, frozen=True, eq=False):
    """How much one step prefills."""

    tokens: int = OWN_CHOICE
    """Prompt tokens at most; 0: the step decodes; ``OWN_CHOICE``: as the engine likes."""
    first: Index | None = None
    """Indices into the queue: who goes first, in this order; None: the engine's own."""
    late_tokens: int = OWN_CHOICE
    """What a step may prefill whose decision comes late, for whomever has come by then."""
    predicted_step_s: float = 0.0
    """Predicted time of a step that prefills so much; 0 for one that only decodes."""
    riding_tokens: int = 0
    """Tokens that will ride along with the rows that decode: what those who spend after this one
    must count into every step. 0 where decode and prefill take turns."""


class StepPlan(msgspec.Struct, frozen=True, eq=False):
    """What one step runs."""

    park: Mask
    """Rows that sit the step out, shape ``(rows,)``. Marks on rows that may not be parked are
    ignored."""
    predicted_step_s: float = 0.0
    """Predicted latency of the step as planned; 0 while nothing is fitted."""
    baseline_step_s: float = 0.0
    """Predicted latency with one row per request."""
    budget_s: float = 0.0
    slack_s: float = 0.0
    drafts: DraftPlan | None = None
    """None where no policy decides about drafts."""
    prefill: PrefillPlan | None = None
    """None where no policy decides about prefill."""
    order: OrderPlan | None = None
    """None where no policy decides about the order."""


Decide = Callable[[StepState, StepLatencyPredictor, Any], StepPlan]
DecideDrafts = Callable[[StepState, StepLatencyPredictor, Any, StepPlan], DraftPlan]
"""Likewise, given which rows advance."""
DecidePrefill = Callable[[StepState, StepLatencyPredictor, Any, StepPlan], PrefillPlan]
"""Likewise, given which rows advance: one a request if the branches are decided later."""
DecideOrder = Callable[[StepState, StepLatencyPredictor, Any, StepPlan], OrderPlan]
"""Likewise. It is asked before all others."""


class NoConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For policies without settings."""


class PolicyFailed(Exception):
    """A policy raised, or returned nonsense; carries its label, and the cause."""


class PolicyKind(msgspec.Struct, frozen=True):
    """A policy before it is configured."""

    name: str
    decide: Decide | DecideDrafts | DecidePrefill | DecideOrder
    """What the knob asks for."""
    config_type: type[msgspec.Struct] = NoConfig
    """Frozen struct; its fields can be set in order (``cap:2``) or by name (``cap:width=2``)."""
    orders: OrdersRule = every_row_advances
    """What the engine does when a decision is late."""
    usage: str = ""
    """An example of how to write it."""
    summary: str = ""
    knob: Knob = Knob.BRANCHES


class Part(msgspec.Struct, frozen=True, eq=False):
    """A kind and its settings."""

    kind: PolicyKind
    config: msgspec.Struct


class Policy(msgspec.Struct, frozen=True, eq=False):
    """What decides about one step: a part for the branches, and perhaps for other knobs.

    A step has one latency budget: the time that every request in it can wait for its next token.
    The parts spend it in the order of ``parts``; each sees what those before it have taken.
    """

    parts: tuple[Part, ...]
    """One a knob at most, the branches always, the order before all and drafts only after them."""
    label: str
    """As it was asked for, such as ``cap:2`` or ``adaptive_chunk+taper_plus+turbospec``."""

    @property
    def branches(self) -> Part:
        return next(part for part in self.parts if part.kind.knob is Knob.BRANCHES)

    def decides(self, knob: Knob) -> bool:
        return any(part.kind.knob is knob for part in self.parts)

    def plan(
        self, state: StepState, predictor: StepLatencyPredictor, held: Mask | None = None
    ) -> StepPlan:
        """What the step runs.

        Args:
            held: rows to park, where that was decided at an earlier step.

        Raises:
            PolicyFailed: a policy raised, or returned what is no plan.
        """
        try:
            return self._plan(state, predictor, held)
        except Exception as error:
            # A policy may be anyone's code and raise anything; it must not end the controller.
            raise PolicyFailed(self.label) from error

    def _plan(
        self, state: StepState, predictor: StepLatencyPredictor, held: Mask | None
    ) -> StepPlan:
        # Until branches are decided about, each request has the row that it cannot do without.
        plan = StepPlan(park=state.parkable)
        prefill: PrefillPlan | None = None
        drafts: DraftPlan | None = None
        order: OrderPlan | None = None
        for part in self.parts:
            decide: Any = part.kind.decide
            match part.kind.knob:
                case Knob.BRANCHES:
                    if held is None:
                        plan = decide(state, predictor, part.config)
                        _check_branches(plan, state)
                    else:
                        plan = StepPlan(park=held)
                case Knob.ORDER if state.service is not None:
                    order = decide(state, predictor, part.config, plan)
                    _check_order(order, state)
                case Knob.PREFILL if state.prefill is not None:
                    prefill = decide(state, predictor, part.config, plan)
                    _check_prefill(prefill, state.prefill)
                    if prefill.riding_tokens:
                        predictor = riding(predictor, prefill.riding_tokens)
                case Knob.DRAFTS if state.drafts is not None:
                    drafts = decide(state, predictor, part.config, plan)
                    _check_drafts(drafts, state)
        if drafts is None and prefill is None and order is None:
            return plan
        return msgspec.structs.replace(plan, drafts=drafts, prefill=prefill, order=order)

    def standing_orders(
        self, state: StepState, predictor: StepLatencyPredictor, max_rows: int
    ) -> list[Band]:
        """
        Raises:
            PolicyFailed: the rule raised, or returned bands that break the contract.
        """
        try:
            branches = self.branches
            bands = branches.kind.orders(state, predictor, branches.config, max_rows)
            _check_bands(bands)
        except Exception as error:
            raise PolicyFailed(self.label) from error
        return bands


def _check_branches(plan: StepPlan, state: StepState) -> None:
    if plan.park.shape != (state.rows,) or plan.park.dtype != np.bool_:
        raise ValueError(f"park: expected {state.rows} booleans, one a row of the state")
    figures = plan.predicted_step_s + plan.baseline_step_s + plan.budget_s + plan.slack_s
    if not isinstance(figures, float):
        raise TypeError("a plan's figures must be floats, in seconds")


def _check_drafts(drafts: DraftPlan, state: StepState) -> None:
    known = () if state.drafts is None else state.drafts.lengths
    if drafts.length not in (OWN_CHOICE, *known):
        raise ValueError(f"length: the engine drafts {list(known)} tokens, not {drafts.length}")
    if drafts.caps is None:
        return
    if drafts.caps.shape != (state.rows,) or drafts.caps.dtype != np.uint8:
        raise ValueError(f"caps: expected {state.rows} unsigned bytes, one a row of the state")


def _check_prefill(prefill: PrefillPlan, state: PrefillState) -> None:
    for name, tokens in (("tokens", prefill.tokens), ("late_tokens", prefill.late_tokens)):
        if not OWN_CHOICE <= tokens <= MAX_COUNT:
            raise ValueError(f"{name}: expected {OWN_CHOICE} to {MAX_COUNT}, got {tokens}")
    _check_first(prefill.first, state)


def _check_order(order: OrderPlan, state: StepState) -> None:
    _check_first(order.first, state.prefill)
    retract = order.retract
    if retract is None:
        return
    if retract.shape != (state.rows,) or retract.dtype != np.bool_:
        raise ValueError(f"retract: expected {state.rows} booleans, one a row of the state")


def _check_first(first: Index | None, queue: PrefillState | None) -> None:
    if first is None:
        return
    waiting = 0 if queue is None else queue.waiting
    if len(np.unique(first)) != len(first) or np.any((first < 0) | (first >= waiting)):
        raise ValueError(f"first: expected different indices below {waiting}")


def _check_bands(bands: list[Band]) -> None:
    msgspec.convert(msgspec.to_builtins(bands), list[Band])
    bounds = [band.max_rows for band in bands]
    if not 1 <= len(bands) <= MAX_BANDS or bounds != sorted(set(bounds)):
        raise ValueError(f"expected 1 to {MAX_BANDS} bands, ascending in max_rows; got {bounds}")
