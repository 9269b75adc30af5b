"""TAPER's utilities: what the next admitted row of a request is worth, U(k+1) - U(k)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from controller_service.groups import Index
from controller_service.predictors.base import Floats
from controller_service.state import StepState


def log1p_gain(state: StepState, shortest_first: Index) -> Floats:
    """U(k) = log1p(k): each further row of one request is worth less than the one before.

    Args:
        shortest_first: extra rows by ascending context, the order in which a request's rows are
            admitted.

    Returns:
        Gain of each row, in the same order.
    """
    groups = state.group_id[shortest_first]
    together = groups.argsort(kind="stable")
    ordered = groups[together]
    k = np.empty(len(groups))
    k[together] = np.arange(len(groups)) - ordered.searchsorted(ordered)
    gain: Floats = np.log1p(k + 1) - np.log1p(k)
    return gain


def priority_gain(state: StepState, shortest_first: Index) -> Floats:
    """U(k) = k * priority. A priority below 0 counts as 0: last, but not refused."""
    return np.maximum(state.priority[shortest_first].astype(np.float64), 0.0)


GAINS: dict[str, Callable[[StepState, Index], Floats]] = {
    "log1p": log1p_gain,
    "priority": priority_gain,
}
