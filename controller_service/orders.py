"""Standing orders: a small table that stands in for a decision that comes late.

They are made ahead of time and go by the number of mandatory rows alone, which the engine knows at
every step. A policy names the rule that makes its own; the rules live here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from governor_protos.limits import MAX_BANDS
from governor_protos.messages import Band

from controller_service.predictors.base import Floats, StepLatencyPredictor
from controller_service.state import StepState

OrdersRule = Callable[[StepState, StepLatencyPredictor, Any, int], list[Band]]
"""``(state, predictor, config, max_rows) -> bands``, ascending, at most ``MAX_BANDS``."""

NO_CAP = -1


def one_band(max_rows: int, branch_width: int = NO_CAP, extra_rows: int = NO_CAP) -> list[Band]:
    """The same orders for a batch of any size."""
    return [Band(max(max_rows, 1), branch_width, extra_rows)]


def every_row_advances(
    state: StepState,
    predictor: StepLatencyPredictor,
    config: Any,
    max_rows: int,
) -> list[Band]:
    """Stock behaviour: what a policy without a rule of its own falls back to."""
    return one_band(max_rows)


def one_row_a_request(
    state: StepState,
    predictor: StepLatencyPredictor,
    config: Any,
    max_rows: int,
) -> list[Band]:
    """No extra branch advances."""
    return one_band(max_rows, branch_width=1, extra_rows=0)


def affordable_extras(
    state: StepState,
    predictor: StepLatencyPredictor,
    max_rows: int,
    budget: Callable[[Floats], Floats],
) -> list[Band]:
    """For each batch size, how many extra rows of mean context the budget affords.

    Args:
        max_rows: the engine's largest batch; extras are not counted past it.
        budget: seconds granted to a step, given its predicted time with mandatory rows alone;
            both of shape ``(bands,)``.
    """
    if not predictor.fitted or not state.running_rows:
        return one_band(max_rows)
    mean_context = state.running_context_tokens / state.running_rows
    mandatory = _powers_of_two(max_rows)
    granted = budget(predictor.predict(mandatory, mandatory * mean_context))
    # Bisection over all bands at once: the predictor never falls as rows are added.
    fits, too_many = np.zeros_like(mandatory), np.full_like(mandatory, max_rows + 1.0)
    while np.any(too_many - fits > 1):
        middle = np.floor((fits + too_many) / 2)
        rows = mandatory + middle
        within = predictor.predict(rows, rows * mean_context) <= granted
        fits, too_many = np.where(within, middle, fits), np.where(within, too_many, middle)
    return [
        Band(int(rows), NO_CAP, int(extra)) for rows, extra in zip(mandatory, fits, strict=True)
    ]


def _powers_of_two(largest: int) -> Floats:
    """1, 2, 4, ... and ``largest`` itself; the smallest are left out when they are too many."""
    sizes = [1 << power for power in range(largest.bit_length()) if 1 << power < largest]
    return np.array([*sizes, max(largest, 1)][-MAX_BANDS:], dtype=np.float64)
