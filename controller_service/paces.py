"""How slow each request may go: the slack ledger per request rather than per row.

A request is promised an average, ``(t_last - t_first) / (tokens - 1) <= target``, over the tokens
of all its branches. One that ran ahead of that has banked time and may lend it; one that fell
behind must win it back. Its *pace limit* is the time per token that it can take from here on and
still keep its promise, if it goes on for as long as expected.
"""

from __future__ import annotations

import msgspec
import numpy as np

from controller_service.predictors.base import Floats
from controller_service.state import Mask, StepState

LOST_S = -1.0
"""Pace limit of a request that cannot keep its promise any more."""


class Requests(msgspec.Struct, frozen=True, eq=False):
    """The requests of a step, serial ones first, then groups. Columns of shape ``(requests,)``."""

    group_id: Floats
    """0 for a serial request."""
    target_s: Floats
    tokens: Floats
    """Output so far, of all branches."""
    elapsed_s: Floats
    """Since the first token."""
    remaining_tokens: Floats
    """What clients declared (``max_new_tokens``) less what live rows have produced."""
    mandatory_rows: Floats
    extra_rows: Floats


def requests_of(state: StepState, extra: Mask) -> Requests:
    """Sum rows up by request.

    Args:
        extra: rows that are extra branches, shape ``(rows,)``.
    """
    running = state.running
    group, output = state.group_id, state.output_tokens
    waited = np.maximum(state.since_first_token_s, 0.0)
    left = np.maximum(state.max_new_tokens - output, 0)
    alone = running & (group == 0)
    serial = alone.nonzero()[0]
    branches = (running & ~alone).nonzero()[0]
    ids, where = np.unique(group[branches], return_inverse=True)
    count = len(ids)
    live_tokens = np.bincount(where, output[branches], count)
    told = np.zeros(count)
    told[where] = state.group_output_tokens[branches]
    elapsed, target = np.zeros(count), np.zeros(count)
    np.maximum.at(elapsed, where, waited[branches])
    target[where] = state.tpot_slo_s[branches]
    extras = np.bincount(where, extra[branches], count)
    ones = np.ones(len(serial))
    return Requests(
        group_id=np.concatenate([np.zeros(len(serial)), ids]),
        target_s=np.concatenate([state.tpot_slo_s[serial], target]),
        tokens=np.concatenate([output[serial], np.maximum(told, live_tokens)]),
        elapsed_s=np.concatenate([waited[serial], elapsed]),
        remaining_tokens=np.concatenate([left[serial], np.bincount(where, left[branches], count)]),
        mandatory_rows=np.concatenate([ones, np.bincount(where, minlength=count) - extras]),
        extra_rows=np.concatenate([0.0 * ones, extras]),
    )


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
    fastest_s: float,
) -> Floats:
    """Time per token that each request can take from here on.

    What is banked is spread over ``remaining`` tokens. What is owed is won back within
    ``recovery_tokens``, or within all that remain if that would take steps faster than
    ``fastest_s``.

    Args:
        banked: from :func:`banked_s`.
        remaining: tokens that each request is expected to produce still, at least 1.
        fastest_s: duration of the shortest step that can be had.

    Returns:
        Seconds per token, or ``LOST_S`` where even the fastest steps come too late.
    """
    target = requests.target_s * (1.0 - margin)
    at_leisure = target + banked / remaining
    soon = target + banked / np.minimum(remaining, recovery_tokens)
    limit = np.where(banked >= 0, at_leisure, np.maximum(soon, np.minimum(at_leisure, fastest_s)))
    return np.where(at_leisure >= fastest_s, limit, LOST_S)
