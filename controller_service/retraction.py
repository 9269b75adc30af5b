"""From the rows that a policy marks to those that an engine is told to retract."""

from __future__ import annotations

import numpy as np

from controller_service.columns import Mask
from controller_service.policies.base import StepPlan
from controller_service.state import StepState


def retractable(state: StepState) -> Mask:
    """Rows that may be retracted, shape ``(rows,)``: running ones with no flag set. An unknown flag
    forbids it, so that a newer engine's reasons are respected."""
    unflagged: Mask = state.running & (state.flags == 0)
    return unflagged


def rows_to_retract(state: StepState, plan: StepPlan) -> Mask:
    """What a decision may say of ``plan.order.retract``: never all rows that run.

    Of a plan that marks them all, the last one stays.
    """
    nobody = np.zeros(state.rows, dtype=np.bool_)
    order, service = plan.order, state.service
    if order is None or order.retract is None or service is None or not service.can_retract:
        return nobody
    marked = order.retract & retractable(state)
    if np.count_nonzero(marked) >= state.running_rows and marked.any():
        marked[np.flatnonzero(marked)[-1]] = False
    return marked
