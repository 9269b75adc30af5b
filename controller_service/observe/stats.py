"""Counters that the hot path bumps. Nothing here formats, locks or grows."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

from governor_protos.messages import Outcome

TURNAROUND_BOUNDS_S = (25e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 1e-2, 5e-2)
"""Upper bounds of the turnaround histogram; one more bucket holds what is slower."""

OUTCOMES = tuple(outcome.name.lower() for outcome in Outcome)


class Histogram:
    """Counts by bucket, and their sum, as Prometheus wants them."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class OutcomeCounts:
    """What engines said became of decisions."""

    def __init__(self) -> None:
        self.counts = [0] * len(OUTCOMES)
        self.unknown = 0

    def add(self, outcome: int) -> None:
        if outcome < len(self.counts):
            self.counts[outcome] += 1
        else:
            self.unknown += 1  # a newer engine's word

    def by_name(self) -> dict[str, int]:
        return dict(zip(OUTCOMES, self.counts, strict=True))


class ControllerStats:
    """Everything counted since the controller started."""

    def __init__(self) -> None:
        self.decisions: Counter[str] = Counter()
        """By the policy's name without its settings, so that there are only a few."""
        self.bad_frames: Counter[str] = Counter()
        self.throttled_frames: Counter[str] = Counter({"frames": 0, "bytes": 0})
        """Messages dropped unread, by the limit of their sender that they broke."""
        self.refused_keys = 0
        """Connections refused for their key; counted by the authenticator's thread alone."""
        self.outcomes = OutcomeCounts()
        self.turnaround_s = Histogram(TURNAROUND_BOUNDS_S)
        self.superseded = 0
        """Snapshots left unanswered because a newer one of the same engine was there already."""
        self.policy_errors = 0
        self.memory_errors = 0
        """Turns of the loop that ended early, as memory ran out."""
