"""``fcfs``: the engine's own order, which by default is first come, first served. A baseline."""

from __future__ import annotations

from controller_service.policies.base import Knob, NoConfig, OrderPlan, PolicyKind, StepPlan
from controller_service.predictors.base import StepLatencyPredictor
from controller_service.state import StepState


def decide(
    state: StepState, predictor: StepLatencyPredictor, config: NoConfig, plan: StepPlan
) -> OrderPlan:
    return OrderPlan()


FCFS = PolicyKind(
    "fcfs",
    decide,
    usage="fcfs",
    summary="the engine's own order; nobody yields; a baseline",
    knob=Knob.ORDER,
)
