"""Where time goes besides the device: host work, the way to the engine, the controller's answer."""

from __future__ import annotations

import random

import msgspec


class HostTimes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds that the host spends. The defaults are small: a governed GPU host hides nearly all.

    In the overlap loop the device works meanwhile, so they cost time only where they exceed a step.
    """

    plan_s: float = 0.3e-3
    """Receiving, planning and launching a step."""
    plan_row_s: float = 2e-6
    retract_s: float = 0.38e-3
    """Putting a step together that retracts rows because somebody said so, and for each row: as
    measured on the engine."""
    retract_row_s: float = 85e-6
    process_s: float = 0.2e-3
    """Taking in a step's results and sending them off."""
    process_row_s: float = 4e-6
    request_s: float = 2e-3
    """From the user's sending to the waiting queue: HTTP and tokenizer."""
    reply_s: float = 1e-3
    """From the engine's output to the user."""

    def plan(self, rows: int) -> float:
        return self.plan_s + rows * self.plan_row_s

    def retract(self, rows: int) -> float:
        return self.retract_s + rows * self.retract_row_s if rows else 0.0

    def process(self, rows: int) -> float:
        return self.process_s + rows * self.process_row_s


class DecisionLatency(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Snapshot sent to decision received: lognormal."""

    median_s: float = 0.4e-3
    spread: float = 0.4
    """Standard deviation of the logarithm."""

    def sample(self, rng: random.Random) -> float:
        return self.median_s * rng.lognormvariate(0.0, self.spread)
