"""``taper``: TAPER as published (arXiv 2605.06914).

Extra branches are opportunistic work: they join a step only while what they add to its latency,
their *branch externality*, fits the slack that the batch can spare::

    S0     = one row per request
    T0     = T(S0);  slack = min over rows(deadline) - now
    budget = T0 + rho * max(0, slack - T0)
    repeat:  admit the best feasible extra row by [U(k+1) - U(k)] / (eps + dT)
    until    none fits

Until the predictor is fitted every row advances.

Every branch past a request's first row counts as opportunistic here, as published. So do branches
that a request needs to keep its own promise: with a target of 12 ms per token over all branches and
steps of 20 ms, one row is not enough. Once such a request is late its deadlines leave no slack, and
its branches, and everybody else's, stay parked but for what ageing lets through. ``taper_plus``
tells needed rows from extra ones.

The literal loop predicts the cost of every remaining row once per admitted row. Here the rows are
ranked once and the whole ranking is tried at once, which admits the same rows: the predictor never
falls as rows or context are added, so a row that does not fit now never will, and with U(k) = k
the best feasible row is always the one with the shortest context. For the other utilities each
row is ranked by its dT on top of S0; for a linear predictor that is its dT on top of any set.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import numpy as np
from governor_protos.limits import MAX_DURATION_S
from governor_protos.messages import Band
from msgspec import Meta

from controller_service.groups import BaseSet, Index, base_set
from controller_service.ledger import last_token_deadlines, tightest_slack_s
from controller_service.orders import affordable_extras, one_band
from controller_service.policies import eager
from controller_service.policies.base import NoConfig, PolicyKind, StepPlan
from controller_service.policies.plans import park_rows
from controller_service.policies.utility import GAINS
from controller_service.predictors.base import Floats, StepLatencyPredictor, V, marginal_s
from controller_service.state import StepState

EPSILON_S = 1e-9
"""Keeps a free row's score finite."""


class TaperConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    utility: Literal["linear", "log1p", "priority"] = "linear"
    """U(k) = k, log1p(k) or k * priority; k counts a request's admitted extra rows."""
    rho: Annotated[float, Meta(ge=0, le=1)] = 0.8
    """Share of the slack that extra rows may use."""
    slack: bool = True
    """Whether there is a budget at all; without one every row advances (TAPER's ablation)."""


def decide(state: StepState, predictor: StepLatencyPredictor, config: TaperConfig) -> StepPlan:
    if not predictor.fitted:
        return eager.decide(state, predictor, NoConfig())
    deadlines = last_token_deadlines(state)
    base = base_set(state, deadlines)
    slack_s = tightest_slack_s(state, deadlines)
    budget_s = _budget(predictor.predict(base.rows, base.context_tokens), slack_s, config)
    ranking = _best_first(state, predictor, base, config)
    out = _left_out(state, predictor, base, ranking, budget_s)
    return park_rows(state, predictor, out, base, slack_s, budget_s=budget_s)


def _budget(baseline_s: V, slack_s: float, config: TaperConfig) -> V:
    if not config.slack:
        return baseline_s + MAX_DURATION_S
    spare = slack_s - baseline_s
    budget: V = baseline_s + config.rho * np.maximum(spare, 0.0)
    return budget


def _best_first(
    state: StepState, predictor: StepLatencyPredictor, base: BaseSet, config: TaperConfig
) -> Index:
    """The extra rows by falling score; ties go to the shortest context, then the lowest index."""
    extras = base.extras
    shortest_first: Index = extras[state.context_tokens[extras].argsort(kind="stable")]
    if config.utility == "linear" or not extras.size:
        return shortest_first
    context = state.context_tokens[shortest_first].astype(np.float64)
    cost_s = marginal_s(predictor, base.rows, base.context_tokens, context)
    score = GAINS[config.utility](state, shortest_first) / (EPSILON_S + cost_s)
    ranking: Index = shortest_first[(-score).argsort(kind="stable")]
    return ranking


def _left_out(
    state: StepState,
    predictor: StepLatencyPredictor,
    base: BaseSet,
    ranking: Index,
    budget_s: float,
) -> Index:
    """Walk the ranking, admit what fits, and return what did not.

    Each round admits rows up to the first that does not fit, then drops all that never will.
    """
    rows, context_tokens = float(base.rows), float(base.context_tokens)
    left_out: list[Index] = []
    while ranking.size:
        context = state.context_tokens[ranking].astype(np.float64)
        total = context_tokens + context.cumsum()
        step_s = predictor.predict(rows + _counting(len(ranking)), total)
        admitted = int(step_s.searchsorted(budget_s, side="right"))
        if admitted:
            rows, context_tokens = rows + admitted, float(total[admitted - 1])
        ranking, context = ranking[admitted:], context[admitted:]
        if not ranking.size:
            break
        # A row at least as long as one that did not fit does not fit either.
        shorter = context < context[0]
        if not np.count_nonzero(shorter):
            left_out.append(ranking)
            break
        with_row = predictor.predict(np.full(len(ranking), rows + 1), context_tokens + context)
        fits = shorter & (with_row <= budget_s)
        left_out.append(ranking[~fits])
        ranking = ranking[fits]
    return np.concatenate(left_out) if left_out else ranking


def _counting(count: int) -> Floats:
    """1, 2, ..., ``count``."""
    return np.arange(1, count + 1, dtype=np.float64)


def _orders(
    state: StepState, predictor: StepLatencyPredictor, config: TaperConfig, max_rows: int
) -> list[Band]:
    """For each batch size, the extra rows that the current slack affords."""
    if not predictor.fitted:
        return one_band(max_rows)
    slack_s = tightest_slack_s(state, last_token_deadlines(state))
    return affordable_extras(state, predictor, max_rows, lambda t0: _budget(t0, slack_s, config))


TAPER = PolicyKind(
    "taper",
    decide,
    TaperConfig,
    orders=_orders,
    usage="taper:utility=log1p,rho=0.6",
    summary="extra branches while their externality fits the batch's slack",
)
