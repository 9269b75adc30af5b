"""Circuit breaker: stop asking a controller that does not answer, and notice when it is back."""

from __future__ import annotations

from enum import Enum


class BreakerState(Enum):
    CLOSED = "closed"
    """Normal: every step is asked about."""
    OPEN = "open"
    """The controller is not asked; the engine runs as stock."""
    HALF_OPEN = "half_open"
    """One probe is out; its answer closes the breaker, its silence reopens it."""


class CircuitBreaker:
    """Half-open circuit breaker over a clock that the caller passes in.

    Args:
        misses_to_open: unanswered questions in a row that open it.
        probe_interval_s: seconds between probes while open.
    """

    def __init__(self, misses_to_open: int, probe_interval_s: float) -> None:
        self._misses_to_open = misses_to_open
        self._probe_interval_s = probe_interval_s
        self._misses = 0
        self._next_probe_s = 0.0
        self.state = BreakerState.CLOSED
        self.openings = 0

    def allows_question(self) -> bool:
        """Whether ordinary questions may be asked now."""
        return self.state is BreakerState.CLOSED

    def take_probe(self, now_s: float) -> bool:
        """Whether a probe is due now; taking it moves the breaker to half-open."""
        if self.state is BreakerState.CLOSED or now_s < self._next_probe_s:
            return False
        self.state = BreakerState.HALF_OPEN
        self._next_probe_s = now_s + self._probe_interval_s
        return True

    def record_answer(self) -> bool:
        """A valid answer arrived. Returns True if this closed the breaker."""
        self._misses = 0
        closed_now = self.state is not BreakerState.CLOSED
        self.state = BreakerState.CLOSED
        return closed_now

    def record_miss(self, now_s: float) -> bool:
        """A question went unanswered. Returns True if this opened the breaker."""
        self._misses += 1
        if self.state is BreakerState.CLOSED and self._misses >= self._misses_to_open:
            self._open(now_s)
            return True
        return False

    def trip(self, now_s: float) -> bool:
        """Open at once (a refusal, garbage). Returns True if it was closed."""
        if self.state is not BreakerState.CLOSED:
            return False
        self._open(now_s)
        return True

    def _open(self, now_s: float) -> None:
        self.state = BreakerState.OPEN
        self.openings += 1
        self._misses = 0
        self._next_probe_s = now_s + self._probe_interval_s
