"""A token bucket."""

from __future__ import annotations


class Throttle:
    """Allows ``per_s`` events a second, and a burst of one second's worth."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._tokens = per_s
        self._then_s = 0.0

    def allows(self, now_s: float) -> bool:
        gained = max(0.0, now_s - self._then_s) * self._per_s
        self._tokens = min(self._per_s, self._tokens + gained)
        self._then_s = now_s
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
