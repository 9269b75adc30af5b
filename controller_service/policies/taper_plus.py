"""``taper_plus``: TAPER with banked slack, needed rows, a guard against collapse, and a floor.

Published TAPER lets one row decide for all: the batch's slack is that of the row whose next token
is due first, so a row that a prefill has just delayed, or one that is late beyond help, parks
everyone's branches, and a row that ran ahead gets no credit for it. It also takes every branch for
opportunistic work, though a request may need several rows to keep its own promise. Here

*bank*   a request's slack counts from its first token: ahead of schedule it may lend time, behind
         it must win it back (:mod:`controller_service.paces`);
*needs*  the rows that a request needs to keep its own promise come before any branch that is
         extra (:mod:`controller_service.policies.needed_rows`);
*guard*  the step's length is the one with the best goodput, counting the tokens of those requests
         that it leaves able to keep their promise. A request that is lost anyway binds nobody, and
         one that could only be saved by stopping everybody else is not;
*floor*  branches may always add a small share to a step, whatever the slack, so that a wrong
         prediction or an impossible target cannot starve them.

Each is a switch. With all four off this is ``taper``.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
from governor_protos.limits import MAX_DURATION_S
from governor_protos.messages import Band
from msgspec import Meta

from controller_service.columns import F4, Mask
from controller_service.groups import BaseSet, base_set
from controller_service.ledger import last_token_deadlines
from controller_service.orders import affordable_extras, one_band
from controller_service.paces import (
    LOST_S,
    Requests,
    banked_s,
    mean_width,
    pace_limits_s,
    requests_of,
)
from controller_service.policies import eager
from controller_service.policies.base import NoConfig, PolicyKind, StepPlan
from controller_service.policies.needed_rows import (
    RankedExtras,
    needed_first,
    shortest_first,
)
from controller_service.policies.plans import park_rows
from controller_service.predictors.base import Floats, StepLatencyPredictor
from controller_service.state import StepState

MAX_CANDIDATES = 32
"""Step lengths that are weighed against each other."""
SHORTEST_S = 1e-9
"""No step counts as shorter than this: a rate over no time would be no number."""


class TaperPlusConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    bank: bool = True
    """Slack counts from a request's first token, not from its last one."""
    needs: bool = True
    """Rows that a request needs for its own promise come before extra ones. Takes ``bank``."""
    guard: bool = True
    """The step's length is chosen by goodput, not by the tightest row."""
    floor: Annotated[float, Meta(ge=0, le=1)] = 0.03
    """Extra branches may always add this share of the step's time without them."""
    rho: Annotated[float, Meta(ge=0, le=1)] = 1.0
    """Share of the slack that extra rows may use."""
    margin: Annotated[float, Meta(ge=0, lt=1)] = 0.03
    """Share of a target that is kept back when slack is banked."""
    recovery_tokens: Annotated[float, Meta(ge=1, le=4096)] = 24.0
    """Tokens within which a request that fell behind wins the time back."""
    least_remaining: Annotated[float, Meta(ge=1, le=4096)] = 32.0
    """A request is expected to go on for as many tokens as it has, and at least for these."""


def decide(state: StepState, predictor: StepLatencyPredictor, config: TaperPlusConfig) -> StepPlan:
    if not predictor.fitted:
        return eager.decide(state, predictor, NoConfig())
    deadlines = last_token_deadlines(state)
    base = base_set(state, deadlines)
    requests = requests_of(state, base.extras)
    remaining = np.maximum(requests.tokens, config.least_remaining)
    worth = 1.0 + requests.tokens / remaining
    if not config.bank:
        limits = _last_token_limits(state, deadlines, requests)
        return choose(state, predictor, base, requests, limits, worth, config)
    shortest_s = predictor.predict(base.rows, base.context_tokens)
    shortest_s += state.prefill_per_token_s * base.rows
    limits = pace_limits_s(
        requests,
        banked_s(requests, config.margin),
        remaining,
        config.recovery_tokens,
        config.margin,
        shortest_s / requests.rows if config.needs else shortest_s,
    )
    return choose(state, predictor, base, requests, limits, worth, config)


def choose(
    state: StepState,
    predictor: StepLatencyPredictor,
    base: BaseSet,
    requests: Requests,
    limits: Floats,
    worth: Floats,
    config: TaperPlusConfig,
) -> StepPlan:
    """Admit extra rows, needed ones first, up to the step length that suits the requests.

    Args:
        limits: pace limit of each request, seconds per token, ``LOST_S`` where lost.
        worth: what a token of each request counts for if the promise can be kept: the tokens that
            would be lost with it count along.
    """
    least_s = predictor.predict(base.rows, base.context_tokens)
    least_s += state.prefill_per_token_s * base.rows * config.bank
    limits = np.where(limits > least_s, least_s + config.rho * (limits - least_s), limits)
    if config.needs and config.bank:
        every_s = predictor.predict(state.running_rows, state.running_context_tokens)
        every_s += state.prefill_per_token_s * state.running_rows
        extras = needed_first(state, predictor, base, requests, limits, every_s)
    else:
        extras = shortest_first(state, base, requests)
    context = state.context_tokens[extras.rows].cumsum(dtype=np.float64)
    rows = base.rows + np.arange(len(extras.rows) + 1, dtype=np.float64)
    step_s = predictor.predict(rows, base.context_tokens + np.concatenate([[0.0], context]))
    # What a user waits between two tokens: the step, and the prefill that comes with it.
    wait_s = step_s + state.prefill_per_token_s * rows if config.bank else step_s
    if config.guard:
        fresh = requests.target_s * (1.0 - config.margin * config.bank)
        admitted = _best_goodput(wait_s, requests, extras, limits, fresh, worth)
    else:
        admitted = max(extras.needed, _fits(wait_s, float(limits.min(initial=np.inf))))
    admitted = max(admitted, _fits(step_s, (1.0 + config.floor) * float(step_s[0])))
    slack_s = _least(limits, limits > LOST_S)
    return park_rows(
        state,
        predictor,
        extras.rows[admitted:],
        base,
        min(slack_s, MAX_DURATION_S),
        budget_s=float(step_s[admitted]),
    )


def _fits(wait_s: Floats, limit_s: float) -> int:
    """Extra rows that keep a step within ``limit_s``."""
    return max(0, int(wait_s.searchsorted(limit_s, side="right")) - 1)


def _best_goodput(
    wait_s: Floats,
    requests: Requests,
    extras: RankedExtras,
    limits: Floats,
    fresh: Floats,
    worth: Floats,
) -> int:
    """Extra rows to admit: the step length with the most tokens per second that will count.

    A token counts if its request can keep its promise at this pace.

    That sum sees this step only, and would give up a class of users as soon as enough of them are
    late, and with them all who come after. So no step is longer than a newcomer of any class that
    can be served at all may wait, unless everybody has time banked. Needed rows alone may exceed
    that: then newcomers cannot be served beside them, and the sum decides.

    Nor does it see that a request which is behind cannot win time back once its branches have
    ended. So a request that keeps its promise while every row advances is never left short, unless
    that keeps the promise of another one, which would lose it while every row advances.
    """
    most = len(wait_s) - 1
    if not most:
        return 0
    kept_by_all = requests.rows * limits >= wait_s[-1]
    serial = requests.rows <= 1
    for_newcomers = _fits(wait_s, _longest_wait_s(wait_s[0], limits[serial], fresh[serial]))
    if for_newcomers == most and (kept_by_all | (limits == LOST_S)).all():
        return most  # every row may advance, and nobody is hurt by it
    if for_newcomers >= extras.needed:
        most = min(most, for_newcomers)
    edges = wait_s.searchsorted(limits[serial], side="right") - 1
    # Marks and not np.unique: a sort would take a tenth of the decision.
    weighed = np.zeros(most + 1, dtype=np.bool_)
    weighed[[0, most]] = True
    weighed[np.minimum(np.maximum(edges, 0), most)] = True
    candidates = weighed.nonzero()[0]
    if len(candidates) > MAX_CANDIDATES:
        candidates = candidates[np.linspace(0, len(candidates) - 1, MAX_CANDIDATES).astype(int)]
    # With all of their slack (rho = 1) needed rows leave nobody short, so that there is always
    # something to choose.
    candidates = np.append(candidates, extras.needed)
    length = wait_s[candidates]
    rows = extras.advancing(requests, candidates)
    kept = rows * limits[:, None] >= length
    # With fewer than all of its rows a request must bear the step until its last branch has ended.
    branching = (~serial).nonzero()[0]
    some, whole = rows[branching], requests.rows[branching, None]
    is_borne = mean_width(whole, some) * limits[branching, None] >= length
    kept[branching] &= (some >= whole) | is_borne
    is_anybody_short = (kept_by_all[:, None] & ~kept).any(axis=0)
    does_anybody_gain = (kept & ~kept_by_all[:, None]).any(axis=0)
    rate = worth @ (rows * kept) / np.maximum(length, SHORTEST_S)
    rate[is_anybody_short & ~does_anybody_gain] = -np.inf
    return int(candidates[rate == rate.max()].max())


def _longest_wait_s(shortest_s: float, limits: Floats, fresh: Floats) -> float:
    """No serial user who can be served at all waits longer than this for a token."""
    return max(_least(fresh, fresh >= shortest_s), _least(limits, limits > LOST_S))


def _least(values: Floats, counted: Mask) -> float:
    """The least of the values that are counted; infinite where none is."""
    # The ufunc itself: ndarray.min takes twice as long to come to the same.
    return float(np.minimum.reduce(values, initial=np.inf, where=counted))


def _last_token_limits(state: StepState, deadlines: F4, requests: Requests) -> Floats:
    """Each request's tightest deadline by the published rule; none if all were deferred."""
    due = np.where(state.running & ~state.deferred, deadlines, MAX_DURATION_S)
    if not requests.starts.size:
        return np.zeros(0)
    limits: Floats = np.minimum.reduceat(due[requests.by_request], requests.starts)
    return limits


def _orders(
    state: StepState, predictor: StepLatencyPredictor, config: TaperPlusConfig, max_rows: int
) -> list[Band]:
    """For each batch size, the extra rows that keep a step as short as the newest plan does."""
    if not predictor.fitted:
        return one_band(max_rows)
    step_s = decide(state, predictor, config).predicted_step_s
    return affordable_extras(state, predictor, max_rows, lambda t0: np.maximum(t0, step_s))


TAPER_PLUS = PolicyKind(
    "taper_plus",
    decide,
    TaperPlusConfig,
    orders=_orders,
    usage="taper_plus:floor=0.1,margin=0.05",
    summary="taper with banked slack, rows that are needed, a guard against collapse, and a floor",
)
