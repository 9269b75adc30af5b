"""What learning did, as counters that the hot path bumps."""

from __future__ import annotations

from collections import Counter


class LearningCounts:
    """Since the controller started, over all engines."""

    def __init__(self) -> None:
        self.drifts = 0
        """Changes of the machine that were noticed."""
        self.promotions = 0
        """Models that came to predict."""
        self.rollbacks = 0
        """Models that were taken back, by hand or because they did worse."""
        self.refusals: Counter[str] = Counter()
        """Models that were not taken, by reason."""
        self.refits: Counter[str] = Counter()
        """Fits in the background, by what became of them: promoted, refused, failed."""
