"""``sjf``: who is predicted to write least goes first, whatever drafts give it; nobody yields.

Shortest job first on the predicted length alone, as without LAPS-SD's view of acceptance and
without preemption. A baseline.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from controller_service.policies.base import Knob, OrderPlan, PolicyKind, StepPlan
from controller_service.policies.ordering import NAMED, line_up
from controller_service.predictors.base import StepLatencyPredictor
from controller_service.state import StepState


class SjfConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    patience_s: Annotated[float, Meta(gt=0, le=1e6)] = 600.0
    """Seconds of waiting after which a request comes before all others, the oldest first."""


def decide(
    state: StepState, predictor: StepLatencyPredictor, config: SjfConfig, plan: StepPlan
) -> OrderPlan:
    service, queue = state.service, state.prefill
    if service is None or queue is None or not queue.waiting:
        return OrderPlan()
    aged = service.queue.waited_s > config.patience_s
    order = line_up(state, queue, [service.queue.remaining_tokens], aged)
    return OrderPlan(order[:NAMED])


SJF = PolicyKind(
    "sjf",
    decide,
    SjfConfig,
    usage="sjf:patience_s=30",
    summary="the shortest by predicted length first; a baseline",
    knob=Knob.ORDER,
)
