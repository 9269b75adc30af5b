"""``eager``: every branch advances at every step (TAPER's IRP-Eager baseline; stock behaviour)."""

from __future__ import annotations

from controller_service.groups import base_set
from controller_service.ledger import last_token_deadlines, tightest_slack_s
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
    nobody = base.extras[:0]
    return park_rows(state, predictor, nobody, base, tightest_slack_s(state, deadlines))


EAGER = PolicyKind("eager", decide, usage="eager", summary="every row advances, as in stock SGLang")
