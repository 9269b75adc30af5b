"""Whose prompt KV memory has room for."""

from __future__ import annotations

import numpy as np

from controller_service.columns import Mask
from controller_service.predictors.base import Floats
from controller_service.prefill.queue import PrefillState
from controller_service.state import StepState

CLIP_TOKENS = 4096
"""SGLang expects a request to produce no more than this, whatever it may."""
LEAST_GROWTH = 0.1
"""Share of what rows may still produce for which SGLang keeps room at least."""
KEPT_FREE = 0.06
"""Share of memory that is kept from requests that want more than it, for those that want less."""


def room_tokens(state: StepState) -> float:
    """Memory that nobody holds and that those who run are not expected to need."""
    left = np.maximum(state.max_new_tokens - state.output_tokens, 0)
    growth = LEAST_GROWTH * float(np.minimum(left, CLIP_TOKENS).sum(dtype=np.int64))
    return state.kv_total_tokens - state.kv_used_tokens - growth


def wanted_tokens(state: StepState, queue: PrefillState) -> Floats:
    """What each waiting request has to find free to be let in, shape ``(waiting,)``."""
    wanted = np.minimum(np.maximum(queue.max_new_tokens - queue.output_tokens, 0), CLIP_TOKENS)
    needed = queue.missing_tokens.astype(np.float64) + wanted + queue.page_size
    kept_free = KEPT_FREE * state.kv_total_tokens
    whole: Floats = needed + np.where(needed > kept_free, kept_free, 0.0)
    return whole


def fits(state: StepState, queue: PrefillState) -> Mask:
    """Which waiting requests could be let in, each on its own, shape ``(waiting,)``.

    A request that cannot must not be tried: SGLang takes it as a sign that nobody can, and lets no
    other in until a row leaves. What is only doubtful counts as fitting.
    """
    fitting: Mask = (wanted_tokens(state, queue) < room_tokens(state)) | queue.started_mask
    return fitting
