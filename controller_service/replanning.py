"""How often a plan is made: every step, or every k-th.

TAPER plans every step. Holding a plan for several is one of its ablations ("no per-step
replanning"): the rows that it parked stay parked, and rows that came since advance.
"""

from __future__ import annotations

import numpy as np

from controller_service.columns import U4
from controller_service.policies.base import Policy, StepPlan
from controller_service.predictors.base import StepLatencyPredictor
from controller_service.state import StepState


class Planner:
    """Asks the policy at every ``replan_steps``-th step and holds its plan in between."""

    def __init__(self, replan_steps: int = 1) -> None:
        self._replan_steps = replan_steps
        self._until_step = -1
        self._policy: Policy | None = None
        self._parked: U4 | None = None

    def plan(self, state: StepState, policy: Policy, predictor: StepLatencyPredictor) -> StepPlan:
        """
        Raises:
            PolicyFailed: the policy raised, or returned what is no plan.
        """
        if self._replan_steps == 1:
            return policy.plan(state, predictor)
        if self._parked is None or policy is not self._policy or self._expired(state):
            plan = policy.plan(state, predictor)
            self._policy, self._parked = policy, state.request_id[plan.park]
            self._until_step = state.for_step + self._replan_steps
            return plan
        return policy.plan(state, predictor, held=np.isin(state.request_id, self._parked))

    def _expired(self, state: StepState) -> bool:
        first_step = self._until_step - self._replan_steps
        return not first_step <= state.for_step < self._until_step
