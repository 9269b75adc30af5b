"""Which extra branches are no gift: the rows that a request needs to keep its own promise.

A request that branches is promised an average over the tokens of all its branches. Where one row
cannot make that pace, the request needs several rows at every step, and they come before any
branch that is extra. A row needs to advance if the step is longer than what its request can bear
without it. More rows make the step longer, and a longer step needs more rows: the rows are ranked
by the step length from which on they are needed, and the first of them that is not needed ends
what is.
"""

from __future__ import annotations

import msgspec
import numpy as np

from controller_service.groups import BaseSet, Index
from controller_service.paces import LOST_S, Requests, mean_width
from controller_service.predictors.base import Floats, StepLatencyPredictor
from controller_service.state import StepState

RESERVE = 2.0
"""A request that needs several rows gets enough for steps that are this many times as long as this
one. Its branches end one by one, so it cannot win back later what it loses now."""


class RankedExtras(msgspec.Struct, frozen=True, eq=False):
    """The extra rows of a step in the order in which they are admitted. Columns of one shape."""

    rows: Index
    """Indices into the state."""
    request: Index
    """The request of each row, as an index into :class:`~controller_service.paces.Requests`."""
    needed: int
    """How many of the first rows are needed by their own requests."""

    def advancing(self, requests: Requests, admitted: Index) -> Floats:
        """Rows of each request that advance if only the first few extra rows are admitted.

        Args:
            admitted: numbers of extra rows, shape ``(candidates,)``.

        Returns:
            Shape ``(requests, candidates)``.
        """
        own = requests.rows - requests.extra_rows
        rows = np.repeat(own[:, None], len(admitted), axis=1)
        if self.rows.size:
            together = self.request.argsort(kind="stable")
            branching, starts = np.unique(self.request[together], return_index=True)
            is_in = together < admitted[:, None]
            rows[branching] += np.add.reduceat(is_in, starts, axis=1, dtype=np.float64).T
        return rows


def shortest_first(state: StepState, base: BaseSet, requests: Requests) -> RankedExtras:
    """The published order: the shortest context first. No row is needed."""
    rows = _by_context(state, base)
    return RankedExtras(rows, requests.of_rows(rows), 0)


def needed_first(
    state: StepState,
    predictor: StepLatencyPredictor,
    base: BaseSet,
    requests: Requests,
    limits: Floats,
) -> RankedExtras:
    """Rows that their own requests need come first, the most urgent of them at the head.

    The other rows follow. Each request gets the same share of its rows, or more if a longer step
    would make it need more.

    A request that is lost cannot need anything. It gets its fair share: of its rows, the share that
    this step has of the length that it would have with every row. A lost request that stood still
    would hold its memory and its place for ever.

    Args:
        limits: pace limit of each request, seconds per token, ``LOST_S`` where lost.
    """
    rows = _by_context(state, base)
    request = requests.of_rows(rows)
    own = (requests.rows - requests.extra_rows)[request]
    before = own + _rank_within(request)  # rows of the same request that are ahead of this one
    whole = requests.rows[request]
    every_s = _wait_s(state, predictor, base, rows)
    fair_s = float(every_s[-1]) * before / whole
    width = np.maximum(mean_width(whole, before) / RESERVE, 1.0)
    limit = limits[request]
    needed_from_s = np.where(limit > LOST_S, limit * width, fair_s)
    urgent = needed_from_s.argsort(kind="stable")
    wait_s = _wait_s(state, predictor, base, rows[urgent])
    spared = needed_from_s[urgent] >= wait_s[:-1]
    needed = int(spared.argmax()) if spared.any() else len(spared)
    rest = urgent[needed:]
    rest = rest[np.minimum(needed_from_s, fair_s)[rest].argsort(kind="stable")]
    ranking = np.concatenate([urgent[:needed], rest])
    return RankedExtras(rows[ranking], request[ranking], needed)


def _by_context(state: StepState, base: BaseSet) -> Index:
    rows: Index = base.extras[state.context_tokens[base.extras].argsort(kind="stable")]
    return rows


def _rank_within(request: Index) -> Index:
    """How many rows of the same request stand before each row, shape of ``request``."""
    together = request.argsort(kind="stable")
    ordered = request[together]
    rank = np.empty(len(request), dtype=np.intp)
    rank[together] = np.arange(len(request)) - ordered.searchsorted(ordered)
    return rank


def _wait_s(
    state: StepState, predictor: StepLatencyPredictor, base: BaseSet, ranking: Index
) -> Floats:
    """What a user waits for a token: the step with the first n rows, and the prefill that comes
    with it, for n from 0 on; shape ``(rows + 1,)``."""
    context = np.concatenate([[0.0], state.context_tokens[ranking].cumsum(dtype=np.float64)])
    rows = base.rows + np.arange(len(ranking) + 1, dtype=np.float64)
    seconds: Floats = predictor.predict(rows, base.context_tokens + context)
    return seconds + state.prefill_per_token_s * rows
