"""What it costs to let a row yield: it has to come back.

The engine leaves the KV of a retracted row in its prefix cache. There it counts as free, and goes
once others have taken all that is free besides, least recently used first: what the row has
written, in one piece, then its prompt. What those have written who end meanwhile is younger, so it
does not help that they end.
"""

from __future__ import annotations

import numpy as np

from controller_service.predictors.base import Floats, StepLatencyPredictor
from controller_service.prefill.queue import PrefillState
from controller_service.prefill.room import room_tokens
from controller_service.service.state import Service
from controller_service.state import StepState

RETRACT_S = 380e-6
"""Host time of retracting one row, as measured; several at a time are cheaper."""


def taken_tokens(queue: PrefillState, service: Service, queue_s: Floats, rows_s: Floats) -> Floats:
    """Memory that those who wait and are shorter than each row take before it is its turn again.

    Whoever comes meanwhile is not counted.

    Args:
        service: of those who wait.
        queue_s: what each of them needs still.
        rows_s: what each row does.

    Returns:
        Tokens, shape of ``rows_s``.
    """
    shortest_first = queue_s.argsort(kind="stable")
    each = (queue.missing_tokens + service.remaining_tokens)[shortest_first]
    taken = np.concatenate([[0.0], np.cumsum(each)])
    before: Floats = taken[queue_s[shortest_first].searchsorted(rows_s)]
    return before


def return_s(state: StepState, predictor: StepLatencyPredictor, taken: Floats) -> Floats:
    """Time that everybody waits for each row's sake if it yields, shape ``(rows,)``.

    The host's, and that of the step which prefills what the row has lost by then. Where memory is
    ample that is nothing, but for the one token without which no row comes back.

    Args:
        taken: tokens that others take before the row comes back, shape ``(rows,)``.
    """
    context = state.context_tokens.astype(np.float64)
    written = np.minimum(state.output_tokens, context)
    missing = taken - room_tokens(state)
    lost = np.where(missing > written, context, np.where(missing > 0.0, written, 0.0))
    step_s = predictor.predict(np.ones_like(context), context, np.maximum(lost, 1.0))
    seconds: Floats = RETRACT_S + step_s
    return seconds
