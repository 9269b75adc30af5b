"""The fallback ladder: fresh decision, else standing orders, else stock SGLang.

Lateness is judged in steps, never by a clock, so it is the same wherever it is computed.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import NamedTuple

from governor_protos.messages import Decision, Outcome


class FallReason(StrEnum):
    """Why a governed step ran without a decision made for it."""

    LATE = "late"
    STALE = "stale"
    INVALID = "invalid"
    NO_REPLY = "no_reply"
    DISCONNECTED = "disconnected"
    REFUSED = "refused"
    BREAKER_OPEN = "breaker_open"


class Rung(Enum):
    """Where this step's behaviour comes from."""

    DECISION = "decision"
    ORDERS = "orders"
    STOCK = "stock"


class Footing(NamedTuple):
    """What a step stands on."""

    rung: Rung
    outcome: Outcome
    reason: FallReason | None
    """None on a fresh decision."""


FRESH = Footing(Rung.DECISION, Outcome.APPLIED, None)


def find_footing(step: int, decision: Decision | None, trouble: FallReason) -> Footing:
    """Choose the rung for ``step``.

    Args:
        step: the step about to be planned.
        decision: the newest valid decision, for whatever step it was made.
        trouble: what is wrong with the link, should there be nothing fresh.
    """
    age = None if decision is None else step - decision.for_step
    if age == 0:
        return FRESH
    if trouble is FallReason.INVALID:
        return Footing(Rung.STOCK, Outcome.INVALID, FallReason.INVALID)
    if decision is None or age is None or age < 0:
        return Footing(Rung.STOCK, Outcome.NONE, trouble)
    if age < decision.lease_steps:
        return Footing(Rung.ORDERS, Outcome.LATE, FallReason.LATE)
    reason = FallReason.STALE if trouble is FallReason.NO_REPLY else trouble
    outcome = Outcome.STALE if reason is FallReason.STALE else Outcome.NONE
    return Footing(Rung.STOCK, outcome, reason)
