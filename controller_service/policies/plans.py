"""From the rows that a policy parks to the plan that it returns."""

from __future__ import annotations

import numpy as np

from controller_service.groups import BaseSet, Index
from controller_service.policies.base import StepPlan
from controller_service.predictors.base import StepLatencyPredictor
from controller_service.state import StepState


def park_rows(
    state: StepState,
    predictor: StepLatencyPredictor,
    parked: Index,
    base: BaseSet,
    slack_s: float,
    *,
    budget_s: float | None = None,
) -> StepPlan:
    """Park the rows at ``parked`` (indices); every other running row advances.

    Args:
        budget_s: what the policy allowed the step; without one, the step's own predicted time.
    """
    mask = np.zeros(state.rows, dtype=np.bool_)
    mask[parked] = True
    parked_context = int(np.add.reduce(state.context_tokens[parked], dtype=np.int64))
    predicted_s = predictor.predict(
        state.running_rows - len(parked), state.running_context_tokens - parked_context
    )
    return StepPlan(
        park=mask,
        predicted_step_s=predicted_s,
        baseline_step_s=predictor.predict(base.rows, base.context_tokens),
        budget_s=predicted_s if budget_s is None else budget_s,
        slack_s=slack_s,
    )
