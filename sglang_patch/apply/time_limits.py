"""Time limits that the engine ends requests by: who is near one, and is delayed no longer.

The promise: no request that would have ended in time is ended because it was parked or held.

The rule for a row: it may sit out a step only while it could still write all the tokens that it is
allowed to write (``max_new_tokens``) before its limit, if every step took :data:`MARGIN` times what
steps take. A row for which that was never so takes part in every step, as on an engine without
Governor. So the promise is kept for as long as no step takes longer than that.

The rule for a request that waits: it may be held only while less than half of its limit has passed,
and the prefill of everybody who waits would fit :data:`MARGIN` times into the rest. Otherwise the
engine prefills as it would without Governor, and nobody sits out a step, so that places and memory
become free as soon as they can.

Pure: no SGLang, no clock, no socket.
"""

from __future__ import annotations

from typing import NamedTuple

MARGIN = 2.0
"""Steps may come to take this many times what they take now."""
STEPS_AHEAD = 2
"""Steps between the look at a row and the step after the one that it sits out."""
HELD_SHARE = 0.5
"""Share of a waiting limit after which nobody is held any longer."""


class TimeLimit(NamedTuple):
    """A stretch of time after which the engine ends a request."""

    from_s: float
    """When it began, on the clock of the records."""
    length_s: float

    @property
    def end_s(self) -> float:
        return self.from_s + self.length_s

    def left_s(self, now_s: float) -> float:
        return self.end_s - now_s


def must_advance(
    limit: TimeLimit, now_s: float, steps: int, step_s: float, prefill_s: float = 0.0
) -> bool:
    """Whether a row may not be delayed, so that it can end in time.

    Args:
        limit: ends the row.
        now_s: when the row was looked at.
        steps: steps that it may still need to its end.
        step_s: how long a step of all rows takes.
        prefill_s: what the row needs before its first step, if it is in the middle of its prefill.
    """
    need_s = (steps + STEPS_AHEAD) * step_s + prefill_s
    return limit.left_s(now_s) <= MARGIN * need_s


def must_enter(limit: TimeLimit, now_s: float, prefill_s: float) -> bool:
    """Whether a waiting request may not be held.

    Args:
        limit: ends the request while it waits.
        now_s: when it was looked at.
        prefill_s: how long the engine takes to prefill everybody who waits.
    """
    return limit.left_s(now_s) <= max(HELD_SHARE * limit.length_s, MARGIN * prefill_s)
