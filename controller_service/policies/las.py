"""``las``: least attained service first, in a multi-level feedback queue; knows nothing of lengths.

Who has had less than the first quantum of service is in the first queue, and each next queue's
quantum is twice as long. A row whose quantum is used up yields to a request of a queue before its
own that finds no place, whatever that costs. Within a queue, first come, first served. A baseline.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from controller_service.policies.base import Knob, OrderPlan, PolicyKind, StepPlan
from controller_service.policies.ordering import NAMED, line_up
from controller_service.predictors.base import StepLatencyPredictor
from controller_service.retraction import retractable
from controller_service.service.times import levels
from controller_service.service.yielding import rows_that_yield
from controller_service.state import StepState


class LasConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    queues: Annotated[int, Meta(ge=1, le=64)] = 5
    """Queues that a request sinks through as it is served."""
    quantum_s: Annotated[float, Meta(gt=0, le=1e6)] = 8.0
    """Seconds of service in the first queue; each next queue allows twice as many."""
    patience_s: Annotated[float, Meta(gt=0, le=1e6)] = 600.0
    """Seconds of waiting after which a request comes before all others, the oldest first."""
    preempt: bool = True
    """Whether a running row yields its place at all."""


def decide(
    state: StepState, predictor: StepLatencyPredictor, config: LasConfig, plan: StepPlan
) -> OrderPlan:
    service, queue = state.service, state.prefill
    if service is None or queue is None or not queue.waiting:
        return OrderPlan()
    level = levels(service.queue.attained_s, config.quantum_s, config.queues)
    aged = service.queue.waited_s > config.patience_s
    order = line_up(state, queue, [level], aged)
    retract = None
    helped = order[~queue.started_mask[order]]
    if config.preempt and service.can_retract and not aged[helped].any():
        attained = service.rows.attained_s
        used = levels(attained, config.quantum_s, config.queues)
        may = np.flatnonzero(retractable(state) & (service.rows.waited_s <= config.patience_s))
        most_first = may[(-attained[may]).argsort(kind="stable")]
        retract = rows_that_yield(
            state,
            service,
            helped,
            most_first,
            lambda request, rows: bool(used[rows].min() > level[request]),
        )
    return OrderPlan(order[:NAMED], retract)


LAS = PolicyKind(
    "las",
    decide,
    LasConfig,
    usage="las:quantum_s=2",
    summary="least attained service first, in queues of doubling quanta; a baseline",
    knob=Knob.ORDER,
)
