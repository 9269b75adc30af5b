"""``turbospec``: the draft length with the best predicted goodput (TurboSpec, arXiv 2406.14066).

Published::

    goodput(k) = B * (1 - a^(k+1)) / (1 - a) / (T_draft(k) + T_target(B, k) + T_overhead)
    a <- moving average of acceptance (0.75 old + 0.25 new);  k = 0 gets x1.1
    k whose KV would not fit is refused

That is ``turbospec:per_request=false,estimate=average,value=sum,reluctance=1.1,protect=false``. By
default

*estimate*    every request has a chance of its own (:mod:`controller_service.speculation`);
*per_request* where the engine can verify drafts of different lengths at their own cost, each
              request has a draft of its own;
*value*       what counts is the rate in the long run, over requests as they come
              (:mod:`controller_service.policies.draft_candidates`);
*told*        an engine that can share a budget out over its rows is given one;
*protect*     no request that can keep its target is pushed past its pace;
*probe*       where nothing is worth drafting, a few rows draft one token now and then, so that it
              is noticed when that changes.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from controller_service.columns import U1
from controller_service.policies.base import DraftPlan, Knob, PolicyKind, StepPlan
from controller_service.policies.draft_candidates import (
    Candidates,
    Value,
    equal_candidates,
    own_candidates,
)
from controller_service.policies.drafting import Batch, Protection
from controller_service.predictors.base import Floats, StepLatencyPredictor
from controller_service.state import StepState

MOST_TRIES = 48
"""Candidates that are checked against everybody's pace before none is taken."""
SHORTER = 0.98
"""Where the best one hurts somebody, the others are shorter by this factor at least."""


class TurboSpecConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    per_request: bool = True
    """Each request has its own length, where drafts of different lengths cost differently."""
    estimate: Literal["requests", "average"] = "requests"
    """A chance for each request, or the published average over the batch."""
    value: Value = "rate"
    """What drafts are chosen by: tokens per second in the long run, or (published) of this very
    step."""
    reluctance: Annotated[float, Meta(ge=1, le=2)] = 1.0
    """Goodput of no drafts counts this many times (published: 1.1)."""
    keep: Annotated[float, Meta(ge=0, le=1)] = 0.01
    """Goodput of the newest length counts this share more."""
    protect: bool = True
    """No request that can keep its target is pushed past its pace."""
    told: Literal["budget", "caps"] = "budget"
    """What an engine that can share a budget out is given. It knows its draft's chances at this
    very place of every text, of which the controller knows no more than the average."""
    probe: Annotated[int, Meta(ge=0, le=65536)] = 48
    """Steps from one look at what a draft would do to the next; 0: never."""
    probe_rows: Annotated[int, Meta(ge=1, le=4096)] = 4
    """Rows that take part in it, where the engine can draft for some only."""


def decide(
    state: StepState, predictor: StepLatencyPredictor, config: TurboSpecConfig, plan: StepPlan
) -> DraftPlan:
    drafts = state.drafts
    if drafts is None or not predictor.fitted:
        return DraftPlan()
    batch = Batch.of(state, predictor, plan, drafts)
    if not batch.rows.size:
        return DraftPlan(length=0) if 0 in drafts.lengths else DraftPlan()
    protection = Protection(batch) if config.protect else None
    is_own = config.per_request and drafts.is_ragged and config.estimate == "requests"
    candidates = (
        own_candidates(batch, config.value)
        if is_own
        else equal_candidates(batch, _survival(batch, config.estimate))
    )
    chosen = choose(
        batch,
        candidates,
        protection,
        value=config.value,
        keep=config.keep,
        reluctance=config.reluctance,
    )
    if chosen.length == 0 and config.probe and state.for_step % config.probe == 0:
        return _probe(batch, protection, config) or chosen
    if not is_own or config.told == "caps":
        return msgspec.structs.replace(chosen, given=None)
    return shared_out(chosen, batch, chosen.draft_tokens)


def choose(
    batch: Batch,
    candidates: Candidates,
    protection: Protection | None,
    *,
    value: Value,
    keep: float = 0.0,
    reluctance: float = 1.0,
) -> DraftPlan:
    """The candidate with the best goodput among those that hurt nobody; without one, the first.

    Args:
        value, keep, reluctance: see :class:`TurboSpecConfig`.
    """
    step_s = batch.step_s(candidates.draft_tokens, candidates.length)
    rate = batch.favoured(candidates.rates(batch, step_s, value), step_s, candidates.length, keep)
    rate[candidates.length == 0] *= reluctance
    rate[~candidates.is_possible] = -np.inf
    # Each row its own draft is the best that can be, unless it costs to leave some out.
    offered = rate if batch.drafts.cost.partial_s else np.where(candidates.is_equal, -np.inf, rate)
    best = int(np.argmax(offered))
    plan = _chosen(batch, candidates, best, float(step_s[best]))
    if not best or protection is None or not protection.binds:
        return plan
    if protection.allows(float(step_s[best]), candidates.given_rows(best)):
        return plan
    allowed = _best_allowed(candidates, protection, step_s, rate, SHORTER * float(step_s[best]))
    # Somebody would be hurt by more of it, and is given what was looked after: no node is left out.
    chosen = _chosen(batch, candidates, allowed, float(step_s[allowed]))
    return msgspec.structs.replace(chosen, price=0.0)


def _best_allowed(
    candidates: Candidates,
    protection: Protection,
    step_s: Floats,
    rate: Floats,
    longest_s: float,
) -> int:
    """The best candidate that hurts nobody and beats no drafts, of those whose steps are no longer
    than ``longest_s``; 0 without one."""
    ranked = np.argsort(-rate, kind="stable")
    tried = ranked[(step_s[ranked] <= longest_s) & (rate[ranked] > rate[0])][:MOST_TRIES]
    allowed = protection.allowed(step_s[tried], candidates.given_rows(tried))
    return int(tried[np.argmax(allowed)]) if allowed.any() else 0


def shared_out(chosen: DraftPlan, batch: Batch, most_tokens: float) -> DraftPlan:
    """Leave it to the engine where the tokens go, if it can and there are any."""
    if not batch.drafts.takes_budget or chosen.draft_tokens <= 0 or chosen.given is None:
        return msgspec.structs.replace(chosen, given=None)
    return msgspec.structs.replace(
        chosen, caps=None, shares_out=True, most_tokens=int(min(most_tokens, batch.room_tokens))
    )


def _survival(batch: Batch, estimate: Literal["requests", "average"]) -> Floats:
    drafts = batch.drafts
    if estimate == "requests":
        survival: Floats = drafts.survival(drafts.longest)[batch.rows]
        return survival
    alike = drafts.batch_acceptance ** np.arange(1.0, drafts.longest + 1.0)
    return np.tile(alike, (len(batch.rows), 1))


def _probe(
    batch: Batch, protection: Protection | None, config: TurboSpecConfig
) -> DraftPlan | None:
    """One token for a few rows, in turn; for all where the engine cannot do less."""
    drafts, state = batch.drafts, batch.state
    length = next((item for item in drafts.lengths if item), 0)
    count = len(batch.rows)
    turn = state.for_step // config.probe
    caps = np.zeros(count, dtype=np.uint8)
    some = (np.arange(config.probe_rows) + turn * config.probe_rows) % count
    caps[some if drafts.is_ragged else slice(None)] = 1 if drafts.is_ragged else length
    tokens = float(caps.sum())
    if not length or tokens > batch.room_tokens:
        return None
    step_s = float(batch.step_s(np.array([tokens]), np.array([float(length)]))[0])
    given = 1.0 + (caps > 0) * drafts.survival(1)[batch.rows, 0]
    if protection is not None and not protection.allows(step_s, given):
        return None
    return _plan(batch, length, caps, float(given.sum()), step_s)


def _chosen(batch: Batch, candidates: Candidates, which: int, step_s: float) -> DraftPlan:
    plan = _plan(
        batch,
        int(candidates.length[which]),
        candidates.caps(which),
        float(candidates.tokens[which]),
        step_s,
    )
    takes_all = plan.draft_tokens == plan.length * len(batch.rows)
    if candidates.is_equal[which] or (takes_all and batch.drafts.cost.partial_s):
        return plan  # the engine is to leave nothing out
    given = np.ones(batch.state.rows)
    given[batch.rows] = candidates.given_rows(which)
    return msgspec.structs.replace(plan, price=candidates.price(batch, which, step_s), given=given)


def _plan(batch: Batch, length: int, caps: U1, tokens: float, step_s: float) -> DraftPlan:
    every = np.zeros(batch.state.rows, dtype=np.uint8)
    every[batch.rows] = caps
    known = batch.drafts.lengths
    return DraftPlan(
        length=length if length in known else known[0],  # some engines cannot do without
        caps=every,
        draft_tokens=int(caps.sum()),
        expected_tokens=tokens,
        predicted_step_s=step_s,
    )


TURBOSPEC = PolicyKind(
    "turbospec",
    decide,
    TurboSpecConfig,
    usage="turbospec:per_request=false",
    summary="drafts of the best predicted goodput, for each request its own",
    knob=Knob.DRAFTS,
)
