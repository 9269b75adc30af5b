"""How slow each request may go: the slack ledger per request rather than per row.

A request is promised an average, ``(t_last - t_first) / (tokens - 1) <= target``, over the tokens
of all its branches. One that ran ahead of that has banked time and may lend it; one that fell
behind must win it back. Its *pace limit* is the time per token that it can take from here on and
still keep its promise, if it goes on for as long as expected.
"""

from __future__ import annotations

import msgspec
import numpy as np
from governor_protos.limits import MAX_DURATION_S, MAX_ROWS

from controller_service.columns import U4
from controller_service.groups import Index
from controller_service.predictors.base import Floats
from controller_service.state import StepState

LOST_S = -1.0
"""Pace limit of a request that cannot keep its promise any more."""


class Requests(msgspec.Struct, frozen=True, eq=False):
    """The requests of a step, serial ones first, then groups. Columns of shape ``(requests,)``."""

    group_id: U4
    """0 for a serial request."""
    target_s: Floats
    tokens: Floats
    """Output so far, of all branches."""
    elapsed_s: Floats
    """Since the first token."""
    remaining_tokens: Floats
    """What clients declared (``max_new_tokens``) less what live rows have produced."""
    rows: Floats
    """Rows in the step, extra branches included."""
    extra_rows: Floats
    by_request: Index
    """Indices of the running rows, request after request, shape ``(running rows,)``."""
    starts: Index
    """Where each request starts in ``by_request``."""

    def of_rows(self, rows: Index) -> Index:
        """The request of each row, as an index into the columns.

        Args:
            rows: indices of running rows.
        """
        request = np.empty(int(self.by_request.max(initial=-1)) + 1, dtype=np.intp)
        request[self.by_request] = np.repeat(np.arange(len(self.starts)), self.rows.astype(np.intp))
        return request[rows]


def requests_of(state: StepState, extras: Index) -> Requests:
    """Sum rows up by request.

    Args:
        extras: indices of the extra branches.
    """
    if state.running_rows == state.rows:  # as nearly always
        by_request = state.group_id.argsort(kind="stable")
    else:
        running = state.running.nonzero()[0]
        by_request = running[state.group_id[running].argsort(kind="stable")]
    group = state.group_id[by_request]
    first = np.ones(len(group), dtype=np.bool_)
    first[1:] = (group[1:] != group[:-1]) | (group[1:] == 0)
    starts = first.nonzero()[0]
    output = state.output_tokens[by_request]
    if not starts.size:
        none = np.zeros(0)
        return Requests(group, none, none, none, none, none, none, by_request, starts)
    extra = np.zeros(state.rows)
    extra[extras] = 1.0
    left = np.maximum(state.max_new_tokens[by_request] - output, 0)
    told = np.maximum.reduceat(state.group_output_tokens[by_request], starts)
    waited = np.maximum.reduceat(state.since_first_token_s[by_request], starts)
    return Requests(
        group_id=group[starts],
        target_s=state.tpot_slo_s[by_request[starts]].astype(np.float64),
        tokens=np.maximum(told, np.add.reduceat(output, starts)).astype(np.float64),
        elapsed_s=np.maximum(waited, 0.0).astype(np.float64),
        remaining_tokens=np.add.reduceat(left, starts).astype(np.float64),
        rows=_sizes(starts, len(group)),
        extra_rows=np.add.reduceat(extra[by_request], starts),
        by_request=by_request,
        starts=starts,
    )


def _sizes(starts: Index, end: int) -> Floats:
    """Lengths of the stretches that begin at ``starts``; the last one ends at ``end``."""
    sizes = np.empty(len(starts))
    np.subtract(starts[1:], starts[:-1], out=sizes[:-1])
    sizes[-1] = end - starts[-1]
    return sizes


def mean_width(rows: Floats, advancing: Floats) -> Floats:
    """Tokens per step that a request makes on average until its last branch has ended.

    Branches end one by one, and the last one advances alone. Where what each branch has still to
    write is distributed exponentially with mean m, ``rows`` branches of which ``advancing`` take
    part in every step, those with the least progress first, take
    ``(rows / advancing - 1 + H(advancing)) * m`` steps for ``rows * m`` tokens, with the harmonic
    number H(n) = 1 + 1/2 + ... + 1/n.

    Args:
        rows: branches of each request, at least 1.
        advancing: how many of them advance, from 1 to ``rows``; the arguments broadcast.

    Returns:
        From 1 to ``rows``; 1 for a request without branches.
    """
    harmonic = _HARMONIC[advancing.astype(np.intp)]
    width: Floats = rows / (rows / advancing - 1.0 + harmonic)
    return width


_HARMONIC = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1.0, MAX_ROWS + 1.0))])


def banked_s(requests: Requests, margin: float) -> Floats:
    """Time that each request is ahead of ``1 - margin`` of its target; negative if behind."""
    promised: Floats = requests.tokens * requests.target_s * (1.0 - margin)
    return promised - requests.elapsed_s


def pace_limits_s(
    requests: Requests,
    banked: Floats,
    remaining: Floats,
    recovery_tokens: float,
    margin: float,
    fastest_s: float | Floats,
) -> Floats:
    """Time per token that each request can take from here on.

    What is banked is spread over ``remaining`` tokens. What is owed is won back within
    ``recovery_tokens``, or within all that remain if that would take steps faster than
    ``fastest_s``.

    Args:
        banked: from :func:`banked_s`.
        remaining: tokens that each request is expected to produce still, at least 1.
        fastest_s: duration of the shortest step that can be had, for all requests or for each.

    Returns:
        Seconds per token, or ``LOST_S`` where even the fastest steps come too late.
    """
    target = requests.target_s * (1.0 - margin)
    at_leisure = target + banked / remaining
    soon = target + banked / np.minimum(remaining, recovery_tokens)
    limit = np.where(banked >= 0, at_leisure, np.maximum(soon, np.minimum(at_leisure, fastest_s)))
    return np.where(at_leisure >= fastest_s, limit, LOST_S)


def spare_s(requests: Requests, margin: float, remaining: Floats, step_s: float) -> Floats:
    """How long each request can stand still, once, and still keep its promise.

    What is banked is there to be spent, and so is what steps of ``step_s`` spare over the tokens
    that are still to come. A request whose branches end one by one spares less
    (:func:`mean_width`), but it is lost only when all its rows together cannot make its pace.

    Args:
        margin: share of each target that is kept back.
        remaining: tokens that each request is expected to produce still, at least 1.
        step_s: predicted step of decode.

    Returns:
        Seconds, 0 for a request that can spare nothing; ``LOST_S`` where the promise is lost, and
        more than any duration where there is none.
    """
    if not requests.starts.size:
        return np.zeros(0)
    rows = np.maximum(requests.rows, 1.0)
    promised = banked_s(requests, margin) + remaining * requests.target_s * (1.0 - margin)
    spare = np.maximum(promised - remaining * step_s / mean_width(rows, rows), 0.0)
    kept = np.where(promised > remaining * step_s / rows, spare, LOST_S)
    return np.where(requests.target_s < MAX_DURATION_S, kept, 2.0 * MAX_DURATION_S)
