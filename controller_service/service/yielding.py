"""Preemption: which rows give up their memory for whom, and whether it pays."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np

from controller_service.columns import Mask
from controller_service.groups import Index
from controller_service.predictors.base import Floats
from controller_service.prefill.queue import PrefillState
from controller_service.prefill.room import room_tokens, wanted_tokens
from controller_service.service.state import ServiceState
from controller_service.state import StepState

TRIED = 8
"""Waiting requests for whom rows may yield at one step."""

Pays = Callable[[int, list[int]], bool]
"""Whether these rows (indices) should yield for that waiting request (index)."""


def has_room(state: StepState, service: ServiceState, queue: PrefillState, order: Index) -> bool:
    """Whether there is a place, and memory, for the first of those who wait."""
    if not order.size:
        return True
    missing = wanted_tokens(state, queue)[order[0]] - room_tokens(state)
    return service.most_rows > state.rows and bool(missing < 0)


def rows_that_yield(
    state: StepState, service: ServiceState, order: Index, candidates: Index, pays: Pays
) -> Mask:
    """For each of those who wait and find no place or no memory, the first rows that leave enough.

    Args:
        order: who waits, as they would be let in.
        candidates: rows that may yield, the first to be asked first.

    Returns:
        Rows to retract, shape ``(rows,)``.
    """
    retract = np.zeros(state.rows, dtype=np.bool_)
    queue = state.prefill
    if queue is None or not order.size or not candidates.size:
        return retract
    places = service.most_rows - state.rows
    room = room_tokens(state)
    wanted = wanted_tokens(state, queue)
    left = candidates.tolist()
    for request in order[: TRIED + max(places, 0)].tolist():
        if places > 0 and wanted[request] < room:
            places, room = places - 1, room - wanted[request]
            continue
        # Nobody yields for one that is less urgent.
        below = [row for row in left if state.priority[row] <= queue.priority[request]]
        victims, freed = _enough(below, state, places, wanted[request] - room)
        if not victims or not pays(request, victims):
            break
        retract[victims] = True
        left = [row for row in left if row not in victims]
        places, room = places + len(victims) - 1, room + freed - wanted[request]
    return retract


def _enough(
    candidates: list[int], state: StepState, places: int, missing_tokens: float
) -> tuple[list[int], float]:
    """The first rows that together leave a place and so much memory; none if all do not."""
    victims: list[int] = []
    freed = 0.0
    for row in candidates:
        victims.append(row)
        freed += float(state.context_tokens[row])
        if places + len(victims) > 0 and freed >= missing_tokens:
            return victims, freed
    return [], 0.0


class Swap(msgspec.Struct, frozen=True, eq=False):
    """Whether it saves waiting to serve a request before rows that run.

    Saved is the time by which the rows go on longer than the request takes, but no more than what
    it would wait without them, as others end by themselves. It costs the time that it takes
    to bring the rows back, during which everybody waits.
    """

    queue_s: Floats
    """What each of those who wait needs still, shape ``(waiting,)``."""
    rows_s: Floats
    """What each row does, shape ``(rows,)``."""
    cost_s: Floats
    """What it takes to bring each row back, shape ``(rows,)``."""
    ends_s: Floats
    """When rows end by themselves, ascending."""
    waiting_s: Floats
    """``queue_s``, ascending."""
    margin: float
    """A swap must save so many times what it costs."""

    def pays(self, request: int, victims: list[int]) -> bool:
        shortest_s = float(self.rows_s[victims].min())
        opens_s = float(self.sits_out_s(np.array([shortest_s]))[0])
        saved_s = min(opens_s, shortest_s) - len(victims) * float(self.queue_s[request])
        held = len(self.ends_s) + len(self.queue_s)
        return saved_s > self.margin * held * float(self.cost_s[victims].sum())

    def sits_out_s(self, rows_s: Floats) -> Floats:
        """How long rows wait for a place again if they yield, shape of ``rows_s``.

        By then all those have a place that are served before them.

        Args:
            rows_s: what the rows need still.
        """
        ahead = np.maximum(self.waiting_s.searchsorted(rows_s), 1)
        seconds: Floats = self.ends_s[np.minimum(ahead, len(self.ends_s)) - 1]
        return seconds

    def within(self, spare_s: Floats) -> Mask:
        """Rows that can yield and still keep their promise, shape ``(rows,)``.

        Args:
            spare_s: how long each row can stand still.
        """
        can: Mask = self.sits_out_s(self.rows_s) + self.cost_s <= spare_s
        return can
