"""``fixed_draft:K``: every row drafts K tokens at every step, whatever comes of it. A baseline."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import numpy as np
from governor_protos.limits import MAX_DRAFT_TOKENS
from msgspec import Meta

from controller_service.policies.base import DraftPlan, Knob, PolicyKind, StepPlan
from controller_service.policies.drafting import Batch
from controller_service.predictors.base import StepLatencyPredictor
from controller_service.state import StepState


class FixedDraftConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    length: Annotated[int, Meta(ge=0, le=MAX_DRAFT_TOKENS)]
    """Tokens drafted for each row: the longest of the engine's lengths that is no longer."""


def decide(
    state: StepState, predictor: StepLatencyPredictor, config: FixedDraftConfig, plan: StepPlan
) -> DraftPlan:
    drafts = state.drafts
    if drafts is None:
        return DraftPlan()
    length = max(
        (item for item in drafts.lengths if item <= config.length), default=drafts.lengths[0]
    )
    return of_length(Batch.of(state, predictor, plan, drafts), length)


def of_length(batch: Batch, length: int) -> DraftPlan:
    """Every row drafts ``length`` tokens; on an engine with trees, its best ``length`` nodes."""
    count = len(batch.rows)
    drafts = batch.drafts
    each = min(length, drafts.most_tokens)
    caps: Any = None if drafts.width == 1 else np.full(batch.state.rows, each, dtype=np.uint8)
    survival = drafts.survival(each)[batch.rows] if each else np.zeros((count, 0))
    return DraftPlan(
        length=length,
        caps=caps,
        draft_tokens=count * each,
        expected_tokens=count + float(survival.sum()),
        predicted_step_s=float(batch.step_s(np.array([count * each]), np.array([length]))[0]),
    )


FIXED_DRAFT = PolicyKind(
    "fixed_draft",
    decide,
    FixedDraftConfig,
    usage="fixed_draft:3",
    summary="every row drafts K tokens at every step",
    knob=Knob.DRAFTS,
)
