"""How much a step prefills, and whose prompts first: what decisions and orders come to here.

Pure; how SGLang is told is the seams' business. Whatever arrives, these bounds hold: a budget is at
most the start-up chunk and cuts prompts at pages, and a step without anything to decode prefills.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from governor_protos.columns import unpack
from governor_protos.messages import Band, Decision

from sglang_patch.queue import QueueTable

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


def prefill_as_decided(decision: Decision, queue: QueueTable) -> PrefillOrder:
    """What a decision for this very step says; requests that have left since are passed over."""
    if not decision.prefill_first:
        tokens = decision.prefill_tokens
        return STOCK if tokens == OWN_CHOICE else PrefillOrder(tokens)
    rids = {record.request_id: record.rid for record in queue.records}
    named = unpack("I", decision.prefill_first)
    # NOTE: a dict drops an id that a peer names twice.
    first = tuple(dict.fromkeys(rids[number] for number in named if number in rids))
    return PrefillOrder(decision.prefill_tokens, first)


def prefill_by_orders(orders: Sequence[Band], mandatory_rows: int) -> PrefillOrder:
    """What standing orders say for a batch of this many mandatory rows."""
    if not orders:
        return STOCK
    band = next((band for band in orders if mandatory_rows <= band.max_rows), orders[-1])
    return STOCK if band.prefill_tokens == OWN_CHOICE else PrefillOrder(band.prefill_tokens)


def budget_of(
    order: PrefillOrder, *, most_tokens: int, page_size: int, mixed_rows: int, can_decode: bool
) -> int:
    """Prompt tokens that the step may prefill, within what SGLang can do.

    Args:
        most_tokens: the start-up value of the chunk.
        page_size: chunks are cut at multiples of it.
        mixed_rows: rows that decode in the same step and count against SGLang's chunk.
        can_decode: whether the step could decode instead.

    Returns:
        A multiple of ``page_size``; 0: decode; ``OWN_CHOICE``: as without a controller.
    """
    if order.tokens < 0 or (order.tokens == 0 and not can_decode):
        return OWN_CHOICE
    if order.tokens == 0:
        return 0
    tokens = min(order.tokens, most_tokens - mixed_rows)
    return max(page_size, tokens // page_size * page_size)
