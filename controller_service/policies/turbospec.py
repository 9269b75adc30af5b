"""``turbospec``: the draft length with the best predicted goodput (TurboSpec, arXiv 2406.14066).

Published::

    goodput(k) = B * (1 - a^(k+1)) / (1 - a) / (T_draft(k) + T_target(B, k) + T_overhead)
    a <- moving average of acceptance (0.75 old + 0.25 new);  k = 0 gets x1.1
    k whose KV would not fit is refused

That is ``turbospec:per_request=false,estimate=average,value=sum,reluctance=1.1,protect=false``. By
default

*estimate*    every request has a chance of its own (:mod:`controller_service.speculation`);
*per_request* where the engine can verify drafts of different lengths at their own cost, one budget
              is spent on the likeliest draft tokens of the whole batch;
*value*       what counts is the logarithm of a request's tokens
              (:mod:`controller_service.policies.draft_nodes`);
*protect*     no request that can keep its target is pushed past its pace;
*probe*       where nothing is worth drafting, a few rows draft one token now and then, so that it
              is noticed when that changes.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from controller_service.policies.base import BranchPlan, DraftPlan, Knob, PolicyKind
from controller_service.policies.draft_nodes import Candidates, Value, ragged_candidates
from controller_service.policies.drafting import Batch, Protection
from controller_service.predictors.base import Floats, StepLatencyPredictor
from controller_service.state import U1, StepState

MOST_TRIES = 24
"""Candidates that are checked against everybody's pace before none is taken."""
SHORTER = 0.98
"""Where one hurts somebody, the next is shorter by this factor at least."""


class TurboSpecConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    per_request: bool = True
    estimate: Literal["requests", "average"] = "requests"
    """A chance for each request, or the published average over the batch."""
    value: Value = "log"
    """What a row's tokens are worth: their logarithm, so that the time that requests take is least,
    or as many as they are (published), so that this step gives most."""
    reluctance: Annotated[float, Meta(ge=1, le=2)] = 1.0
    """Goodput of no drafts counts this many times (published: 1.1)."""
    keep: Annotated[float, Meta(ge=0, le=1)] = 0.01
    """Goodput of the newest length counts this share more."""
    protect: bool = True
    probe: Annotated[int, Meta(ge=0, le=65536)] = 48
    """Steps from one look at what a draft would do to the next; 0: never."""
    probe_rows: Annotated[int, Meta(ge=1, le=4096)] = 4
    """Rows that take part in it, where the engine can draft for some only."""


def decide(
    state: StepState, predictor: StepLatencyPredictor, config: TurboSpecConfig, plan: BranchPlan
) -> DraftPlan:
    drafts = state.drafts
    if drafts is None or not predictor.fitted:
        return DraftPlan()
    batch = Batch.of(state, predictor, plan, drafts)
    if not batch.rows.size:
        return DraftPlan(length=0) if 0 in drafts.lengths else DraftPlan()
    protection = Protection(batch) if config.protect else None
    if config.per_request and drafts.is_ragged and config.estimate == "requests":
        candidates = ragged_candidates(batch, config.value)
        chosen = choose(batch, candidates, protection, config.keep, config.reluctance)
    else:
        chosen = _for_all(batch, protection, config)
    if chosen.length == 0 and config.probe and state.for_step % config.probe == 0:
        return _probe(batch, protection, config) or chosen
    return chosen


def choose(
    batch: Batch,
    candidates: Candidates,
    protection: Protection | None,
    keep: float,
    reluctance: float,
) -> DraftPlan:
    """The candidate with the best goodput among those that hurt nobody; without one, no drafts.

    Args:
        reluctance: goodput of no drafts counts this many times.
    """
    step_s = batch.step_s(candidates.draft_tokens, candidates.length)
    rate = batch.goodput(candidates.merit, step_s, candidates.length, keep)
    rate[0] *= reluctance
    longest_s, tries = np.inf, 0
    for which in np.argsort(-rate, kind="stable"):
        if which and step_s[which] > longest_s:
            continue
        caps = candidates.caps(int(which))
        if which and protection is not None:
            given = _expected(batch, caps, float(candidates.tokens[which]))
            if not protection.allows(float(step_s[which]), given):
                # A step that is hardly shorter would hurt the same requests.
                longest_s, tries = SHORTER * float(step_s[which]), tries + 1
                if tries < MOST_TRIES:
                    continue
                break
        return _plan(
            batch,
            int(candidates.length[which]),
            caps,
            float(candidates.tokens[which]),
            float(step_s[which]),
        )
    return _plan(batch, 0, candidates.caps(0), float(len(batch.rows)), float(step_s[0]))


def _for_all(batch: Batch, protection: Protection | None, config: TurboSpecConfig) -> DraftPlan:
    """One length for every row."""
    drafts = batch.drafts
    count = len(batch.rows)
    lengths = np.array([k for k in drafts.lengths if k <= drafts.most_tokens], dtype=np.float64)
    fits = (lengths * count <= batch.room_tokens) | (lengths == lengths[0])
    lengths = lengths[fits]
    longest = int(lengths[-1])
    if config.estimate == "average":
        survival = np.tile(drafts.batch_acceptance ** np.arange(1, longest + 1), (count, 1))
    else:
        survival = drafts.survival(longest)[batch.rows]
    given = np.concatenate([np.ones((count, 1)), 1.0 + survival.cumsum(axis=1)], axis=1)
    tokens = given.sum(axis=0)[lengths.astype(int)]
    merit = tokens
    if config.value == "log":
        merit = count * np.exp(np.log(given).mean(axis=0))[lengths.astype(int)]
    step_s = batch.step_s(lengths * count, lengths)
    rate = batch.goodput(merit, step_s, lengths, config.keep)
    rate[lengths == 0] *= config.reluctance
    best = 0
    for which in np.argsort(-rate, kind="stable"):
        each = int(lengths[which])
        if not each or protection is None:
            best = int(which)
            break
        if protection.allows(float(step_s[which]), given[:, each]):
            best = int(which)
            break
    length = int(lengths[best])
    caps = np.full(count, length, dtype=np.uint8)
    return _plan(batch, length, caps, float(tokens[best]), float(step_s[best]))


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
    given = _expected(batch, caps, count + tokens)
    if protection is not None and not protection.allows(step_s, given):
        return None
    return _plan(batch, length, caps, float(given.sum()), step_s)


def _expected(batch: Batch, caps: U1, total: float) -> Floats:
    """Tokens that each row that advances is expected to be given.

    Args:
        total: their sum as it is known; of trees, rows are given their share of it.
    """
    drafts = batch.drafts
    most = int(caps.max(initial=0))
    if not most:
        return np.ones(len(caps))
    depth = min(most, drafts.longest)
    reached = drafts.survival(depth)[batch.rows].cumsum(axis=1)
    last = np.clip(caps.astype(np.intp), 1, depth) - 1
    added = np.where(caps > 0, reached[np.arange(len(caps)), last], 0.0)
    if drafts.width > 1 and added.any():
        added *= max(0.0, total - len(caps)) / float(added.sum())
    given: Floats = 1.0 + added
    return given


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
