"""How much a step prefills, and whose prompts first: what decisions and orders come to here.

Pure; how SGLang is told is the seams' business. Whatever arrives, these bounds hold: a budget is at
most the start-up chunk and cuts prompts at pages, and a step without anything to decode prefills.
"""

from __future__ import annotations

from typing import NamedTuple

OWN_CHOICE = -1
"""The engine prefills as it would without a controller."""


class PrefillOrder(NamedTuple):
    """What one step prefills."""

    tokens: int = OWN_CHOICE
    """Prompt tokens at most; 0: none, if there is anything to decode."""
    first: tuple[str, ...] = ()
    """Waiting requests (rid) that go before others, in this order. If the one in the middle of its
    prefill is among them, those before it pass it, as far as their whole prompts fit."""


STOCK = PrefillOrder()
