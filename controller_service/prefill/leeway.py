"""How much of the time that TTFT targets leave may be spent: as much as has gone well of late.

A policy that lets requests wait for as long as their targets allow is at the mercy of who comes
next: bursts, and long prompts among short ones. How much it may count on is not predicted but
found out. Every first token in time lets it count on a little more, every one that was nearly or
really late on much less, so that about one in two hundred is late for its sake.
"""

from __future__ import annotations

import numpy as np
from governor_protos.limits import MAX_DURATION_S

from controller_service.state import StepState

FIRST, LEAST = 0.5, 0.01
MORE = 1.004
NEARLY_LATE, NEARLY = 0.95, 0.95
"""A first token that has taken more than this share of its target; factor for it."""
LATE = 0.6
"""Factor for one that came too late."""


class Leeway:
    """Of one engine."""

    def __init__(self) -> None:
        self.share = FIRST
        self._newest: frozenset[int] = frozenset()

    def observe(self, state: StepState) -> None:
        """Take note of the rows that have had their first token since the state before."""
        # NOTE: rows at their first token; a few are missed where several tokens come in one step.
        fresh = np.flatnonzero((state.output_tokens == 1) & (state.since_first_token_s >= 0.0))
        seen = dict(zip(state.request_id[fresh].tolist(), fresh.tolist(), strict=True))
        for request, row in seen.items():
            if request not in self._newest:
                target_s = float(state.ttft_slo_s[row])
                if 0.0 < target_s < MAX_DURATION_S:
                    took_s = float(state.age_s[row] - state.since_first_token_s[row])
                    self._follow(took_s / target_s)
        self._newest = frozenset(seen)

    def _follow(self, used: float) -> None:
        factor = MORE if used <= NEARLY_LATE else NEARLY if used <= 1.0 else LATE
        self.share = min(max(self.share * factor, LEAST), 1.0)
