"""What policies for the order of service have in common."""

from __future__ import annotations

import numpy as np

from controller_service.columns import Mask
from controller_service.groups import Index
from controller_service.predictors.base import Floats
from controller_service.prefill.queue import PrefillState
from controller_service.prefill.room import fits
from controller_service.state import StepState

NAMED = 256
"""Waiting requests that a decision puts in order; the rest follows in the engine's own."""


def line_up(state: StepState, queue: PrefillState, keys: list[Floats], aged: Mask) -> Index:
    """Who waits, in order of service, shape ``(waiting,)``.

    More urgent ones come first. Among equals those that have waited for too long do, whoever came
    first before others; then those that there is room for, by ``keys``, the first of which weighs
    most. A request that finds no room would hold up all that come after it, which is right for one
    that has waited for too long, and for no other.

    Args:
        keys: ascending, each of shape ``(waiting,)``.
        aged: who has waited for too long.
    """
    age = queue.age_s.astype(np.float64)
    outside = ~fits(state, queue) & ~aged
    own = [np.where(aged, 0.0, key) for key in reversed(keys)]
    order: Index = np.lexsort(
        [-age, *own, np.where(aged, -age, 0.0), outside, ~aged, -queue.priority.astype(np.int64)]
    )
    return order
