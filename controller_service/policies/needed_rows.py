"""Which extra branches a request needs to keep its own promise.

A request that branches is promised an average over the tokens of all its branches. Where one row
cannot make that pace, the request needs several rows at every step. Needed rows come before every
branch that is extra.

A row is needed if the step is longer than its request can bear without that row. More rows make
the step longer, and a longer step needs more rows. So rows are ranked by the step length from which
on each is needed, and admitted in that order until the step is too short to need the next one.
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
    """The extra rows of a step in the order in which they are admitted."""

    rows: Index
    """Indices into the state, shape ``(extra rows,)``."""
    place: Index
    """Where in that order each extra row stands, request after request, same shape."""
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
            branching = requests.extra_rows.nonzero()[0]
            is_in = self.place < admitted[:, None]
            starts = _starts(requests)[branching]
            rows[branching] += np.add.reduceat(is_in, starts, axis=1, dtype=np.intp).T
        return rows


def shortest_first(state: StepState, base: BaseSet, requests: Requests) -> RankedExtras:
    """The published order: the shortest context first. No row is needed."""
    rows = _by_request(state, base, requests)
    ranking = np.lexsort((rows, state.context_tokens[rows]))
    return RankedExtras(rows[ranking], _places(ranking), 0)


def needed_first(
    state: StepState,
    predictor: StepLatencyPredictor,
    base: BaseSet,
    requests: Requests,
    limits: Floats,
    every_s: float,
) -> RankedExtras:
    """Rows that their own requests need come first, the most urgent of them at the head.

    The other rows follow. Each request gets the same share of its rows, or more if a longer step
    would make it need more.

    A request that is lost cannot need anything. It gets its fair share: of its rows, the share that
    this step has of the length that it would have with every row. A lost request that stood still
    would hold its memory and its place for ever.

    Args:
        limits: pace limit of each request, seconds per token, ``LOST_S`` where lost.
        every_s: what users wait for a token if every row advances.
    """
    rows = _by_request(state, base, requests)
    count = requests.extra_rows.astype(np.intp)
    request = np.repeat(np.arange(len(count)), count)
    own = requests.rows - requests.extra_rows
    # Rows of the same request that are ahead of each one: its own, and extra ones.
    before = np.arange(len(rows)) + (own - _starts(requests))[request]
    whole = requests.rows[request]
    fair_s = every_s * before / whole
    width = np.maximum(mean_width(whole, before) / RESERVE, 1.0)
    limit = limits[request]
    needed_from_s = np.where(limit > LOST_S, limit * width, fair_s)
    urgent = needed_from_s.argsort(kind="stable")
    spared = needed_from_s[urgent] >= _wait_s(state, predictor, base, rows[urgent])
    needed = int(spared.argmax()) if spared.any() else len(spared)
    rest = urgent[needed:]
    rest = rest[np.minimum(needed_from_s, fair_s)[rest].argsort(kind="stable")]
    ranking = np.concatenate([urgent[:needed], rest])
    return RankedExtras(rows[ranking], _places(ranking), needed)


def _by_request(state: StepState, base: BaseSet, requests: Requests) -> Index:
    """The extra rows, request after request, the shortest context first."""
    is_extra = np.zeros(state.rows, dtype=np.bool_)
    is_extra[base.extras] = True
    rows = requests.by_request[is_extra[requests.by_request]]
    count = requests.extra_rows.astype(np.int64)
    key = np.repeat(np.arange(len(count), dtype=np.int64) << 32, count)
    key += state.context_tokens[rows]
    ordered: Index = rows[key.argsort(kind="stable")]
    return ordered


def _starts(requests: Requests) -> Index:
    """Where the extra rows of each request start, request after request."""
    starts: Index = (requests.extra_rows.cumsum() - requests.extra_rows).astype(np.intp)
    return starts


def _places(ranking: Index) -> Index:
    places = np.empty_like(ranking)
    places[ranking] = np.arange(len(ranking))
    return places


def _wait_s(
    state: StepState, predictor: StepLatencyPredictor, base: BaseSet, ranking: Index
) -> Floats:
    """What users wait for a token before each row is admitted: the step with the rows ahead of it,
    and the prefill that comes with the step. Shape of ``ranking``."""
    context = state.context_tokens[ranking].cumsum(dtype=np.float64)
    context -= state.context_tokens[ranking]
    rows = base.rows + np.arange(len(ranking), dtype=np.float64)
    seconds: Floats = predictor.predict(rows, base.context_tokens + context)
    return seconds + state.prefill_per_token_s * rows
