"""``fixed_chunk:N``: every step may prefill N prompt tokens, whoever waits. A baseline."""

from __future__ import annotations

from typing import Annotated

import msgspec
from governor_protos.limits import MAX_COUNT
from msgspec import Meta

from controller_service.policies.base import Knob, PolicyKind, PrefillPlan, StepPlan
from controller_service.predictors.base import StepLatencyPredictor
from controller_service.state import StepState


class FixedChunkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tokens: Annotated[int, Meta(ge=1, le=MAX_COUNT)]
    """Prompt tokens; no more than the engine's own chunk."""


def decide(
    state: StepState, predictor: StepLatencyPredictor, config: FixedChunkConfig, plan: StepPlan
) -> PrefillPlan:
    if state.prefill is None:
        return PrefillPlan()
    tokens = min(config.tokens, state.prefill.most_tokens)
    riding = 0
    if state.prefill.mixes_chunks and state.prefill.waiting:
        riding = min(tokens, int(state.prefill.missing_tokens.sum()))
    return PrefillPlan(tokens, late_tokens=tokens, riding_tokens=riding)


FIXED_CHUNK = PolicyKind(
    "fixed_chunk",
    decide,
    FixedChunkConfig,
    usage="fixed_chunk:512",
    summary="every step may prefill N prompt tokens",
    knob=Knob.PREFILL,
)
