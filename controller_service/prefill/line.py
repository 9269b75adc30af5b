"""Who is prefilled when: earliest deadline first, and those that come too late after the others.

A deadline that can no longer be met binds nobody, and must not cost the others theirs. Which ones
to give up is Moore and Hodgson's rule (1968), which leaves the fewest late: in order of deadlines,
whenever one would be late, the longest so far is given up. Who is given up is due again when it has
waited twice its target, four times, eight times, and goes after all that can be in time; who has
waited for longest of all is let in first at a fixed share of the steps, so that nobody starves.
"""

from __future__ import annotations

import heapq

import msgspec
import numpy as np
from governor_protos.limits import MAX_DURATION_S

from controller_service.columns import Mask
from controller_service.groups import Index
from controller_service.predictors.base import Floats
from controller_service.prefill.queue import PrefillState

SEEN = 256
"""Requests, those that are due first, among which it is found out who has to be given up."""

LEAST_TARGET_S = 1e-3

OWN_ORDER = 0.85
"""The engine's own order is kept if everybody is done within this share of the time left: to let
short prompts pass keeps those who decode waiting more often."""


class Line(msgspec.Struct, frozen=True, eq=False):
    """The waiting requests in the order in which they should be prefilled."""

    order: Index
    """Indices into the queue, shape ``(waiting,)``."""
    due_s: Floats
    """Until when each of them has to have its first token, in this order, from the beginning of the
    step; for those that were given up, their next chance."""
    kept_back_s: Floats
    """The margin of each."""
    work_tokens: Floats
    """Tokens to prefill up to and including each of them."""
    given_up: int
    """How many of them cannot be in time: they come after those who can."""
    outside: int
    """How many of them there is no room for: the last."""

    @property
    def in_time(self) -> int:
        """How many can be in time: the first."""
        return len(self.order) - self.given_up - self.outside

    @property
    def tokens(self) -> int:
        """All that waits and that there is room for."""
        inside = len(self.order) - self.outside
        return int(self.work_tokens[inside - 1]) if inside else 0


def pages(queue: PrefillState) -> Floats:
    """Missing tokens in whole pages, as a chunk's budget counts them, shape ``(waiting,)``."""
    size = queue.page_size
    missing = np.maximum(queue.missing_tokens, 1).astype(np.int64)
    rounded: Floats = (-(-missing // size) * size).astype(np.float64)
    return rounded


def line_up(
    queue: PrefillState,
    fitting: Mask,
    token_s: float,
    start_s: float,
    margin: float,
    untold_s: float,
) -> Line:
    """
    Args:
        fitting: whose prompt there is room for.
        token_s, start_s: what prefill takes per token and per step.
        margin: share of each target that is kept back; nobody is given up for its sake.
        untold_s: target of a request that was promised nothing.
    """
    missing = pages(queue)
    promised = np.where(queue.ttft_slo_s >= MAX_DURATION_S, untold_s, queue.ttft_slo_s)
    target = np.maximum(promised.astype(np.float64), LEAST_TARGET_S)
    age = queue.age_s.astype(np.float64)
    due = target - age - queue.ahead_s
    if np.all(fitting):
        own = missing.cumsum() * token_s + start_s
        order = due.argsort(kind="stable")
        if np.all(own <= OWN_ORDER * (due - margin * target)):
            order = np.arange(queue.waiting)
        work = missing[order].cumsum()
        if np.all(work * token_s + start_s <= due[order]):
            return Line(order, due[order], margin * target[order], work, 0, 0)
    order = due.argsort(kind="stable")
    alone = missing * token_s + start_s
    late = fitting & (alone > due)
    hopeful = order[(fitting & ~late)[order]][:SEEN]
    late[_given_up(hopeful, missing, due, token_s, start_s)] = True
    due = np.where(late, _next_chance(target, age + alone) - age, due)
    order = np.lexsort((due, late, ~fitting))
    return Line(
        order,
        due[order],
        margin * target[order],
        missing[order].cumsum(),
        int(np.count_nonzero(late)),
        int(np.count_nonzero(~fitting)),
    )


def _given_up(
    order: Index, missing: Floats, due: Floats, token_s: float, start_s: float
) -> list[int]:
    """Moore and Hodgson: whom to leave out of ``order`` so that the fewest are late."""
    kept: list[tuple[float, int]] = []
    given_up = []
    total = 0.0
    for index in order.tolist():
        heapq.heappush(kept, (-float(missing[index]), index))
        total += float(missing[index])
        if total * token_s + start_s > due[index]:
            longest, other = heapq.heappop(kept)
            total += longest
            given_up.append(other)
    return given_up


def _next_chance(target: Floats, waited_s: Floats) -> Floats:
    """``target`` doubled as often as it takes to reach ``waited_s``, and once at least."""
    times = np.maximum(np.ceil(np.log2(np.maximum(waited_s / target, 1.0))), 1.0)
    chance: Floats = target * 2.0**times
    return chance
