"""``off``: one row per request advances (TAPER's IRP-Off baseline).

The row of a group whose trunk is not in the step still advances, or its request would never end.
"""

from __future__ import annotations

from controller_service.groups import base_set
from controller_service.ledger import last_token_deadlines, tightest_slack_s
from controller_service.orders import one_row_a_request
from controller_service.policies.base import NoConfig, PolicyKind, StepPlan
from controller_service.policies.plans import park_rows
from controller_service.predictors.base import StepLatencyPredictor
from controller_service.state import StepState


def decide(
    state: StepState,
    predictor: StepLatencyPredictor,
    config: NoConfig,
) -> StepPlan:
    deadlines = last_token_deadlines(state)
    base = base_set(state, deadlines)
    slack_s = tightest_slack_s(state, deadlines)
    return park_rows(state, predictor, base.extras, base, slack_s)


OFF = PolicyKind(
    "off",
    decide,
    orders=one_row_a_request,
    usage="off",
    summary="one row per request; every extra branch sits out",
)
