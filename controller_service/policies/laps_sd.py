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

How long a request will be is a guess, and a row that has yielded for one that turns out to be long
has yielded in vain. So rows yield by what can be relied on: the waiting request is taken for as
long as it is at most, and the row for as short as it is at least, but for a chance of ``caution``
each.

The paper knows no targets. With ``protect`` a row does not yield where its request would break a
TPOT target for it: whoever waits has no tighter claim.

Shortest first makes the longest wait. ``late_share`` of the places go to whoever will have taken
more than ``late`` times as long as the average of all that are there, the oldest first
(:mod:`controller_service.service.lateness`); with 0 mean latency is least, with 1 the tail is that
of first come, first served, or nearly.

Nobody starves. Whoever has waited for ``patience_s``, over all its turns, comes first, oldest
first; nobody of the same priority passes it from then on, no row that has waited for so long
yields, and none yields more than ``most_retractions`` times. So it waits at most ``patience_s``
and what first come, first served would have made it wait behind those that are older. More urgent
requests (``priority``) come before all that are less urgent, whatever these have waited.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec
import numpy as np
from governor_protos.limits import MAX_DURATION_S
from msgspec import Meta

from controller_service.columns import Mask
from controller_service.groups import Index
from controller_service.paces import LOST_S, requests_of, spare_s
from controller_service.policies.base import Knob, OrderPlan, PolicyKind, StepPlan
from controller_service.policies.ordering import NAMED, line_up
from controller_service.predictors.base import Floats, StepLatencyPredictor
from controller_service.retraction import retractable
from controller_service.service.costs import return_s, taken_tokens
from controller_service.service.lateness import late, latency_s, let_in
from controller_service.service.state import Service, ServiceState
from controller_service.service.times import levels, remaining_s, round_s
from controller_service.service.yielding import Swap, has_room, rows_that_yield
from controller_service.state import StepState

LEAST_REMAINING = 32.0
"""A request is expected to go on for at least so many tokens."""
TPOT_MARGIN = 0.03
"""Share of a TPOT target that is kept back."""


class LapsSdConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    queues: Annotated[int, Meta(ge=1, le=64)] = 5
    """Queues that a request sinks through as it is served."""
    quantum_s: Annotated[float, Meta(gt=0, le=1e6)] = 1.0
    """Seconds of service in the first queue; each next queue allows twice as many."""
    spread: Annotated[float, Meta(ge=0, le=1)] = 0.05
    """Standard deviation of the share of accepted drafts below which it has settled."""
    prior: bool = True
    """Whether who has not settled is ranked by everybody's acceptance, not by attained service."""
    late_share: Annotated[float, Meta(ge=0, le=1)] = 0.25
    """Share of the places that is kept for requests that are late."""
    late: Annotated[float, Meta(ge=1, le=1000)] = 4.0
    """A request is late after this many times the mean latency."""
    patience_s: Annotated[float, Meta(gt=0, le=1e6)] = 600.0
    """Seconds of waiting after which a request comes before all others, the oldest first."""
    preempt: bool = True
    """Whether running rows ever yield their places."""
    caution: Annotated[float, Meta(ge=0, le=0.5)] = 0.1
    """Chance that a length is misjudged where a row yields; 0: both are taken for their means."""
    margin: Annotated[float, Meta(ge=0, le=1000)] = 2.0
    """A row yields if that saves so many times what it costs."""
    protect: bool = True
    """Whether a row whose request would break its TPOT target for it does not yield."""
    most_retractions: Annotated[int, Meta(ge=0, le=1000)] = 2
    """How often one request yields at most."""


class _Times(NamedTuple):
    """What is expected of everybody, in seconds."""

    round_s: float
    queue_s: Floats
    """Still to be served, of who waits; likewise ``rows_s``."""
    rows_s: Floats


def decide(
    state: StepState, predictor: StepLatencyPredictor, config: LapsSdConfig, plan: StepPlan
) -> OrderPlan:
    service, queue = state.service, state.prefill
    if service is None or queue is None or not queue.waiting:
        return OrderPlan()
    one_round_s = round_s(state, predictor)
    times = _Times(
        one_round_s,
        remaining_s(service.queue, one_round_s),
        remaining_s(service.rows, one_round_s),
    )
    aged = service.queue.waited_s > config.patience_s
    is_late, rows_late = late(
        latency_s(service.queue, times.queue_s), latency_s(service.rows, times.rows_s), config.late
    )
    places = config.late_share * service.most_rows
    kept = let_in(is_late, int(rows_late.sum()), queue.age_s, places)
    # Late ones come after those who have waited for too long: without room for them, they stand in
    # nobody's way.
    oldest_first = np.where(kept, -queue.age_s.astype(np.float64), 0.0)
    rank = [oldest_first, *_rank(service.queue, times.queue_s, config)]
    order = line_up(state, queue, rank, aged)
    retract = None
    if config.preempt and service.can_retract and predictor.fitted:
        # What is freed while one waits that comes first would be that one's.
        helped = order[~queue.started_mask[order]]
        if not (aged | kept)[helped].any():
            may = _may_yield(state, service, config)
            if config.late_share:
                may &= ~rows_late
            retract = _yielding(state, service, predictor, config, helped, may, times)
    return OrderPlan(order[:NAMED], retract)


def _yielding(
    state: StepState,
    service: ServiceState,
    predictor: StepLatencyPredictor,
    config: LapsSdConfig,
    helped: Index,
    may: Mask,
    times: _Times,
) -> Mask | None:
    """Rows that yield to those of ``helped``, in that order, for whom there is no room."""
    queue = state.prefill
    if queue is None or not may.any() or has_room(state, service, queue, helped):
        return None
    least = remaining_s(service.rows, times.round_s, config.caution)
    most = remaining_s(service.queue, times.round_s, 1.0 - config.caution if config.caution else 0)
    taken = taken_tokens(queue, service.queue, times.queue_s, times.rows_s)
    swap = Swap(
        queue_s=most,
        rows_s=least,
        # Dearer for those who have yielded before.
        cost_s=return_s(state, predictor, taken) * (1.0 + service.rows.retractions),
        ends_s=np.sort(times.rows_s[state.running]),
        waiting_s=np.sort(times.queue_s),
        margin=config.margin,
    )
    if config.protect:
        may = may & swap.within(_spare_s(state, times.round_s))
    longest_first = np.flatnonzero(may)
    longest_first = longest_first[(-least[longest_first]).argsort(kind="stable")]
    return rows_that_yield(state, service, helped, longest_first, swap.pays)


def _spare_s(state: StepState, step_s: float) -> Floats:
    """How long each row can stand still before its request breaks its TPOT target, shape
    ``(rows,)``; without bound where there is no target, or none that can be kept."""
    requests = requests_of(state, np.zeros(0, dtype=np.intp))
    remaining = np.maximum(requests.tokens, LEAST_REMAINING)
    each = spare_s(requests, TPOT_MARGIN, remaining, step_s)
    bound = np.where(each == LOST_S, np.inf, each)
    spare = np.zeros(state.rows)
    spare[requests.by_request] = bound[requests.of_rows(requests.by_request)]
    return np.where(spare > MAX_DURATION_S, np.inf, spare)


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
