"""What a policy is: a function from a batch to a plan, with a name and a config."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import msgspec
import numpy as np
from governor_protos.limits import MAX_BANDS
from governor_protos.messages import Band

from controller_service.orders import OrdersRule, every_row_advances
from controller_service.predictors.base import Floats, StepLatencyPredictor
from controller_service.state import U1, Mask, StepState

OWN_CHOICE = -1
"""A draft length that leaves it to the engine."""


class Knob(StrEnum):
    """What a policy decides. Those of one setting, ``a+b``, are asked in this order."""

    BRANCHES = "branches"
    """Which rows sit the step out."""
    DRAFTS = "drafts"
    """How many tokens are drafted, and for whom, out of what time the rows leave."""


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


class BranchPlan(msgspec.Struct, frozen=True, eq=False):
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


Decide = Callable[[StepState, StepLatencyPredictor, Any], BranchPlan]
DecideDrafts = Callable[[StepState, StepLatencyPredictor, Any, BranchPlan], DraftPlan]
"""Likewise, given which rows advance."""


class NoConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For policies without settings."""


class PolicyFailed(Exception):
    """A policy raised, or returned nonsense; carries its label, and the cause."""


class PolicyKind(msgspec.Struct, frozen=True):
    """A policy before it is configured."""

    name: str
    decide: Decide | DecideDrafts
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
    """A configured kind that decides about drafts, beside a policy for the branches."""

    kind: PolicyKind
    config: msgspec.Struct


class Policy(msgspec.Struct, frozen=True, eq=False):
    """A configured policy: a kind that decides about branches, and perhaps one for the drafts."""

    kind: PolicyKind
    config: msgspec.Struct
    label: str
    """As it was asked for, such as ``cap:2`` or ``taper_plus+turbospec``."""
    drafts: Part | None = None

    def plan(self, state: StepState, predictor: StepLatencyPredictor) -> BranchPlan:
        """Which rows advance, and then how much they draft.

        Raises:
            PolicyFailed: a policy raised, or returned what is no plan.
        """
        try:
            plan: BranchPlan = self.kind.decide(state, predictor, self.config)  # type: ignore
            _check_plan(plan, state)
        except Exception as error:
            # A policy may be anyone's code and raise anything; it must not end the controller.
            raise PolicyFailed(self.label) from error
        return plan if self.drafts is None else self.with_drafts(plan, state, predictor)

    def with_drafts(
        self, plan: BranchPlan, state: StepState, predictor: StepLatencyPredictor
    ) -> BranchPlan:
        """``plan`` with what is to be drafted; as it is where nothing can be.

        Raises:
            PolicyFailed: see :meth:`plan`.
        """
        if self.drafts is None or state.drafts is None:
            return plan
        try:
            drafts: DraftPlan = self.drafts.kind.decide(  # type: ignore
                state, predictor, self.drafts.config, plan
            )
            _check_drafts(drafts, state)
        except Exception as error:
            raise PolicyFailed(self.label) from error
        return msgspec.structs.replace(plan, drafts=drafts)

    def standing_orders(
        self, state: StepState, predictor: StepLatencyPredictor, max_rows: int
    ) -> list[Band]:
        """
        Raises:
            PolicyFailed: the rule raised, or returned bands that break the contract.
        """
        try:
            bands = self.kind.orders(state, predictor, self.config, max_rows)
            _check_bands(bands)
        except Exception as error:
            raise PolicyFailed(self.label) from error
        return bands


def _check_plan(plan: BranchPlan, state: StepState) -> None:
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


def _check_bands(bands: list[Band]) -> None:
    msgspec.convert(msgspec.to_builtins(bands), list[Band])
    bounds = [band.max_rows for band in bands]
    if not 1 <= len(bands) <= MAX_BANDS or bounds != sorted(set(bounds)):
        raise ValueError(f"expected 1 to {MAX_BANDS} bands, ascending in max_rows; got {bounds}")
