"""``cap:K``: at most K rows of a branching request advance (TAPER's fixed-width baselines).

A pure cap: it looks at no slack and no prediction. Rows that may not be parked count towards K
but are never cut; the rest of the width goes to the rows with the least output, then the lowest
request id, so that branches take turns.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import numpy as np
from governor_protos.limits import MAX_ROWS
from governor_protos.messages import Band
from msgspec import Meta

from controller_service.groups import Index, base_set
from controller_service.ledger import last_token_deadlines, tightest_slack_s
from controller_service.orders import one_band
from controller_service.policies.base import PolicyKind, StepPlan
from controller_service.policies.plans import park_rows
from controller_service.predictors.base import StepLatencyPredictor
from controller_service.state import StepState


class CapConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    width: Annotated[int, Meta(ge=1, le=MAX_ROWS)]
    """Rows of one branching request that may advance, its trunk included."""


def decide(state: StepState, predictor: StepLatencyPredictor, config: CapConfig) -> StepPlan:
    deadlines = last_token_deadlines(state)
    base = base_set(state, deadlines)
    over = _over_width(state, config.width)
    return park_rows(state, predictor, over, base, tightest_slack_s(state, deadlines))


def _over_width(state: StepState, width: int) -> Index:
    """Indices of the parkable rows past the first ``width`` of their group."""
    candidates = state.parkable.nonzero()[0]
    if not candidates.size:
        return candidates
    groups = state.group_id[candidates]
    order = np.lexsort((state.request_id[candidates], state.output_tokens[candidates], groups))
    ordered = groups[order]
    rank = np.arange(len(ordered)) - ordered.searchsorted(ordered)
    mandatory = np.sort(state.group_id[state.running & ~state.parkable])
    ahead = mandatory.searchsorted(ordered, side="right") - mandatory.searchsorted(ordered)
    over: Index = candidates[order[rank + ahead >= width]]
    return over


def _orders(
    state: StepState,
    predictor: StepLatencyPredictor,
    config: Any,
    max_rows: int,
) -> list[Band]:
    return one_band(max_rows, branch_width=config.width)


CAP = PolicyKind(
    "cap",
    decide,
    CapConfig,
    orders=_orders,
    usage="cap:2",
    summary="at most K rows of a branching request advance",
)
