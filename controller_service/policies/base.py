"""What a policy is: a function from a batch to a plan, with a name and a config."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from governor_protos.limits import MAX_BANDS
from governor_protos.messages import Band

from controller_service.orders import OrdersRule, every_row_advances
from controller_service.predictors.base import StepLatencyPredictor
from controller_service.state import Mask, StepState


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


Decide = Callable[[StepState, StepLatencyPredictor, Any], BranchPlan]


class NoConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For policies without settings."""


class PolicyFailed(Exception):
    """A policy raised, or returned nonsense; carries its label, and the cause."""


class PolicyKind(msgspec.Struct, frozen=True):
    """A policy before it is configured."""

    name: str
    decide: Decide
    config_type: type[msgspec.Struct] = NoConfig
    """Frozen struct; its fields can be set in order (``cap:2``) or by name (``cap:width=2``)."""
    orders: OrdersRule = every_row_advances
    """What the engine does when a decision is late."""
    usage: str = ""
    """An example of how to write it."""
    summary: str = ""


class Policy(msgspec.Struct, frozen=True, eq=False):
    """A configured policy."""

    kind: PolicyKind
    config: msgspec.Struct
    label: str
    """As it was asked for, such as ``cap:2``."""

    def plan(self, state: StepState, predictor: StepLatencyPredictor) -> BranchPlan:
        """
        Raises:
            PolicyFailed: the policy raised, or returned what is no plan.
        """
        try:
            plan = self.kind.decide(state, predictor, self.config)
            _check_plan(plan, state)
        except Exception as error:
            # A policy may be anyone's code and raise anything; it must not end the controller.
            raise PolicyFailed(self.label) from error
        return plan

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


def _check_bands(bands: list[Band]) -> None:
    msgspec.convert(msgspec.to_builtins(bands), list[Band])
    bounds = [band.max_rows for band in bands]
    if not 1 <= len(bands) <= MAX_BANDS or bounds != sorted(set(bounds)):
        raise ValueError(f"expected 1 to {MAX_BANDS} bands, ascending in max_rows; got {bounds}")
