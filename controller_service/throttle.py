"""A token bucket."""

from __future__ import annotations


class Throttle:
    """Allows ``per_s`` events (or units, such as bytes) a second, and one second's worth at once.

    An event that is larger than that is never allowed.
    """

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._tokens = per_s
        self._then_s = 0.0

    def allows(self, now_s: float, units: float = 1.0) -> bool:
        """Whether an event of ``units`` may happen now; if so, it is counted."""
        gained = max(0.0, now_s - self._then_s) * self._per_s
        self._tokens = min(self._per_s, self._tokens + gained)
        self._then_s = now_s
        if self._tokens < units:
            return False
        self._tokens -= units
        return True
