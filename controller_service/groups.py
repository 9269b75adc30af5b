"""Which rows are a request's own, and which are extra (TAPER's S0)."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from controller_service.columns import F4, Mask
from controller_service.state import StepState

Index = npt.NDArray[np.intp]


class BaseSet(msgspec.Struct, frozen=True, eq=False):
    """S0, TAPER's set of one row per request, as its size and what is outside it."""

    extras: Index
    """Ascending indices of the running rows outside S0: the extra branches."""
    rows: int
    """Rows in S0."""
    context_tokens: int
    """Their summed context."""


def base_set(state: StepState, deadlines: F4) -> BaseSet:
    """Split the running rows into S0 and the extra branches.

    S0 holds every row that may not be parked (serial, trunk, pinned). A group with no such row in
    the step, because its trunk has finished or is still in prefill, sends its row with the earliest
    deadline; ties go to the least progress, then to the lowest index.

    Args:
        deadlines: shape ``(rows,)``, seconds.
    """
    extras = _outside(state, deadlines)
    extra_context = int(np.add.reduce(state.context_tokens[extras], dtype=np.int64))
    return BaseSet(
        extras, state.running_rows - len(extras), state.running_context_tokens - extra_context
    )


def _outside(state: StepState, deadlines: F4) -> Index:
    candidates = state.parkable.nonzero()[0]
    if not candidates.size:
        return candidates
    headless = ~_has_mandatory_row(state, candidates)
    if not np.count_nonzero(headless):
        return candidates
    orphans = candidates[headless]
    groups = state.group_id[orphans]
    # The first row of each group in this order is the one that the group sends.
    order = np.lexsort((orphans, state.output_tokens[orphans], deadlines[orphans], groups))
    ordered = groups[order]
    first = np.ones(len(order), dtype=np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    extra = state.parkable.copy()
    extra[orphans[order[first]]] = False
    return extra.nonzero()[0]


def _has_mandatory_row(state: StepState, candidates: Index) -> Mask:
    """For each candidate, whether its group has a row in the step that may not be parked."""
    mandatory = np.sort(state.group_id[state.running & ~state.parkable])
    if not mandatory.size:
        return np.zeros(len(candidates), dtype=np.bool_)
    wanted = state.group_id[candidates]
    found: Mask = mandatory.take(mandatory.searchsorted(wanted), mode="clip") == wanted
    return found
