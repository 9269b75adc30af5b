"""``laps_sd``: the shortest first, once it is known who is short; until then, who has had least.

After LAPS-SD (arXiv 2505.17074). A request is *perceptible* once the share of its draft tokens that
is accepted has settled: over a window of rounds, it has varied by less than ``spread``. Then its
remaining time is predicted, from what is left to write and what a round gives it
(:mod:`controller_service.service.times`), and it joins the queue of that length. Others are in the
queue of the service that they have had. Quanta double from queue to queue. Within a queue,
perceptible ones come first, the shortest first; then who has had least.

Made for a batch. The paper serves one request at a time; here all in the batch advance together,
and what is scarce are places in it and memory. So the order is that of the waiting queue, and a row
yields only where it keeps a shorter request out and that saves more waiting than it costs; every
time that it has yielded before makes it dearer (:mod:`controller_service.service.yielding`,
:mod:`controller_service.service.costs`).
``prior`` goes beyond the paper: a request that has not settled is taken for perceptible, with
everybody's acceptance.

Nobody starves. Whoever has waited for ``patience_s``, over all its turns, comes first, oldest
first; nobody of the same priority passes it from then on, no row that has waited for so long
yields, and none yields more than ``most_retractions`` times. So it waits at most ``patience_s``
and what first come, first served would have made it wait behind those that are older. More urgent
requests (``priority``) come before all that are less urgent, whatever these have waited.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from controller_service.columns import Mask
from controller_service.policies.base import Knob, OrderPlan, PolicyKind, StepPlan
from controller_service.policies.ordering import NAMED, line_up
from controller_service.predictors.base import Floats, StepLatencyPredictor
from controller_service.retraction import retractable
from controller_service.service.costs import return_s, taken_tokens
from controller_service.service.state import Service, ServiceState
from controller_service.service.times import levels, remaining_s, round_s
from controller_service.service.yielding import Swap, rows_that_yield
from controller_service.state import StepState

UNFITTED_ROUND_S = 0.02
"""A round, as long as no predictor says what it takes: only the order hangs on it."""


class LapsSdConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    queues: Annotated[int, Meta(ge=1, le=64)] = 5
    quantum_s: Annotated[float, Meta(gt=0, le=1e6)] = 1.0
    """Of the first queue; every next one's is twice as long."""
    spread: Annotated[float, Meta(ge=0, le=1)] = 0.05
    """Standard deviation of the share of accepted drafts below which it has settled."""
    prior: bool = True
    """Whether who has not settled is ranked by everybody's acceptance, not by attained service."""
    patience_s: Annotated[float, Meta(gt=0, le=1e6)] = 120.0
    preempt: bool = True
    margin: Annotated[float, Meta(ge=0, le=1000)] = 2.0
    """A row yields if that saves so many times what it costs."""
    most_retractions: Annotated[int, Meta(ge=0, le=1000)] = 2
    """How often one request yields at most."""


def decide(
    state: StepState, predictor: StepLatencyPredictor, config: LapsSdConfig, plan: StepPlan
) -> OrderPlan:
    service, queue = state.service, state.prefill
    if service is None or queue is None or not queue.waiting:
        return OrderPlan()
    one_round_s = round_s(state, predictor) if predictor.fitted else UNFITTED_ROUND_S
    queue_s = remaining_s(service.queue, one_round_s)
    aged = service.queue.waited_s > config.patience_s
    order = line_up(state, queue, _rank(service.queue, queue_s, config), aged)
    retract = None
    if config.preempt and service.can_retract and predictor.fitted:
        # What is freed while one waits that has waited for too long would be that one's.
        helped = order[~queue.started_mask[order]]
        if not aged[helped].any():
            rows_s = remaining_s(service.rows, one_round_s)
            taken = taken_tokens(queue, service.queue, queue_s, rows_s)
            # Dearer for those who have yielded before.
            cost_s = return_s(state, predictor, taken) * (1.0 + service.rows.retractions)
            swap = Swap(
                queue_s=queue_s,
                rows_s=rows_s,
                cost_s=cost_s,
                ends_s=np.sort(rows_s[state.running]),
                waiting_s=np.sort(queue_s),
                margin=config.margin,
            )
            may = np.flatnonzero(_may_yield(state, service, config))
            longest_first = may[(-rows_s[may]).argsort(kind="stable")]
            retract = rows_that_yield(state, service, helped, longest_first, swap.pays)
    return OrderPlan(order[:NAMED], retract)


def _rank(service: Service, seconds: Floats, config: LapsSdConfig) -> list[Floats]:
    """Queue, then perceptible ones by remaining time, then the others by attained service."""
    settled: Mask = service.spread < config.spread
    if config.prior:
        settled = np.ones_like(settled)
    level = levels(np.where(settled, seconds, service.attained_s), config.quantum_s, config.queues)
    within = np.where(settled, seconds, service.attained_s)
    return [level, (~settled).astype(np.float64), within]


def _may_yield(state: StepState, service: ServiceState, config: LapsSdConfig) -> Mask:
    rows = service.rows
    may: Mask = retractable(state) & (rows.retractions < config.most_retractions)
    may &= rows.waited_s <= config.patience_s
    return may


LAPS_SD = PolicyKind(
    "laps_sd",
    decide,
    LapsSdConfig,
    usage="laps_sd:patience_s=30",
    summary="least attained service first, then the shortest; rows yield where it pays",
    knob=Knob.ORDER,
)
