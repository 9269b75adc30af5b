"""What the demo concludes, in one word and one sentence, from what its turns came to."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from governor_bench.demo.measure import MOST_HELD_UP, HeldUp, Summary, Turn

KEPT = 0.9
"""Share of the chats that has to keep its target for a policy to count as keeping them."""
HELPED = 0.10
"""What Governor has to add to the share of chats within their target to count as a help."""
FASTER = 1.25
"""How many times faster than one branch at a time branching requests have to be."""


class Outcome(StrEnum):
    """The word of a verdict."""

    KEEPS_BOTH = "keeps both"
    """Chats keep their target, which stock SGLang breaks; branching requests are fast."""
    KEEPS_CHATS_ONLY = "keeps chats only"
    """Chats keep their target, which stock SGLang breaks; branching requests are hardly faster than
    with one branch at a time."""
    HELPS = "helps"
    """More chats keep their target than under stock SGLang, but not as many as were promised."""
    NO_NEED = "no need"
    """Stock SGLang keeps the chats' target already."""
    NO_HELP = "no help"
    """No more chats keep their target than under stock SGLang."""
    VOID = "void"
    """The host was too slow to judge."""


class Verdict(NamedTuple):
    outcome: Outcome
    sentence: str


def judge(
    off: Summary, stock: Summary, governed: Summary, turns: Sequence[Turn], promised_ms: float
) -> Verdict:
    """The verdict on ``governed`` beside the two things that one can do without Governor.

    Args:
        off: one branch at a time.
        stock: every branch, as stock SGLang.
        governed: the default policy.
        turns: all of them, void ones too.
        promised_ms: what every chat was promised per token.
    """
    if not (off.turns and stock.turns and governed.turns):
        return Verdict(Outcome.VOID, _void(turns))
    kept = (
        f"{governed.chats_kept} of {governed.chats} chats kept their {promised_ms:g} ms per token"
    )
    stock_kept = f"{stock.chats_kept} of {stock.chats}"
    took = f"branching requests took {governed.branching_latency_p50_s:.1f} s"
    alone = f"{off.branching_latency_p50_s:.1f} s"
    at_once = f"{stock.branching_latency_p50_s:.1f} s"
    if stock.kept_share >= KEPT:
        return Verdict(
            Outcome.NO_NEED,
            f"At this load there is nothing to govern: stock SGLang kept {stock_kept} chats within "
            f"{promised_ms:g} ms per token, and with Governor {kept}.",
        )
    if governed.kept_share < stock.kept_share + HELPED:
        return Verdict(
            Outcome.NO_HELP,
            f"Governor did not help the chats here: with it {kept}, without it {stock_kept}; "
            f"{took}, without it {at_once}.",
        )
    if governed.kept_share < KEPT:
        return Verdict(
            Outcome.HELPS,
            f"Governor kept less than it should: with it {kept}, without it {stock_kept}; {took}, "
            f"{alone} with one branch at a time.",
        )
    if governed.branching_latency_p50_s * FASTER > off.branching_latency_p50_s:
        return Verdict(
            Outcome.KEEPS_CHATS_ONLY,
            f"With Governor {kept} (without it {stock_kept}), but {took}, hardly less than the "
            f"{alone} with one branch at a time.",
        )
    return Verdict(
        Outcome.KEEPS_BOTH,
        f"With Governor {kept}, and {took} instead of {alone}; stock SGLang kept {stock_kept} "
        f"chats, and its branching requests took {at_once}.",
    )


def _void(turns: Sequence[Turn]) -> str:
    worst = max(
        (turn.held_up for turn in turns),
        key=lambda held_up: held_up.time_share,
        default=HeldUp(0.0, 0.0),
    )
    return (
        f"Void: the host held the device up in {worst.steps_share:.0%} of steps, for "
        f"{worst.time_share:.0%} of its time (at most {MOST_HELD_UP:.0%} may be lost). Run it "
        "again when the machine is less busy, or slow the device down with --scale."
    )
