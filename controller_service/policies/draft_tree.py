"""``draft_tree``: one verification budget over the draft trees of all requests.

The likeliest nodes of all requests together, parents before children, as many as have the best
predicted goodput (Adaptive Resource Allocation's global draft tree, with its budget chosen too). A
request whose drafts are right gets the nodes of one whose are not. With ``budget`` that many nodes
per row are spent whatever they are worth, so that ways to spend them can be compared.

An engine that can (``Drafting.takes_budget``) is told the budget alone: it knows its draft's
chances at this very place of every text, of which the controller knows no more than the average.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from governor_protos.limits import MAX_DRAFT_TOKENS
from msgspec import Meta

from controller_service.policies import turbospec
from controller_service.policies.base import DraftPlan, Knob, PolicyKind, StepPlan
from controller_service.policies.draft_candidates import Value, own_candidates, within_budget
from controller_service.policies.drafting import Batch, Protection
from controller_service.policies.turbospec import TurboSpecConfig
from controller_service.predictors.base import StepLatencyPredictor
from controller_service.state import StepState


class DraftTreeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    budget: Annotated[int, Meta(ge=0, le=MAX_DRAFT_TOKENS)] = 0
    """Nodes per row, spent over all rows together; 0: as many as pay."""
    value: Value = "rate"
    """What drafts are chosen by; the poster's nodes go by their chance alone: ``sum``."""
    protect: bool = True
    """No request that can keep its target is pushed past its pace."""
    told: Literal["budget", "caps"] = "budget"
    """What an engine that can take a budget is given."""


def decide(
    state: StepState, predictor: StepLatencyPredictor, config: DraftTreeConfig, plan: StepPlan
) -> DraftPlan:
    drafts = state.drafts
    if drafts is None or not predictor.fitted:
        return DraftPlan()
    if not drafts.is_ragged or not config.budget:
        by_goodput = TurboSpecConfig(protect=config.protect, value=config.value, told=config.told)
        return turbospec.decide(state, predictor, by_goodput, plan)
    batch = Batch.of(state, predictor, plan, drafts)
    budget = config.budget * len(batch.rows)
    candidates = within_budget(own_candidates(batch, config.value), budget)
    protection = Protection(batch) if config.protect else None
    chosen = turbospec.choose(batch, candidates, protection, value=config.value, reluctance=0.0)
    if config.told == "caps" or not chosen.length:
        return msgspec.structs.replace(chosen, given=None)
    return turbospec.shared_out(msgspec.structs.replace(chosen, price=0.0), batch, budget)


DRAFT_TREE = PolicyKind(
    "draft_tree",
    decide,
    DraftTreeConfig,
    usage="draft_tree",
    summary="the likeliest draft nodes of all requests, as many as pay",
    knob=Knob.DRAFTS,
)
