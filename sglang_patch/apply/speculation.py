"""How much a step drafts: what a decision or standing orders come to on this engine.

Pure; which worker is told, and how, is the seams' business. Whatever arrives, these bounds hold: a
length is one that the engine was set up for, and a row is capped only within it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from governor_protos.columns import unpack
from governor_protos.messages import Band, Decision

from sglang_patch.rows import RowTable

OWN_CHOICE = -1
"""The engine drafts as it would without a controller."""


class DraftOrder(NamedTuple):
    """What one step drafts."""

    length: int = OWN_CHOICE
    """Draft steps, one of the engine's lengths; 0: none."""
    caps: tuple[tuple[str, int], ...] = ()
    """Rows (rid) that may have fewer draft tokens verified than others, and how many."""
    budget: int = OWN_CHOICE
    """Draft tokens over all rows, for an engine that shares them out; ``OWN_CHOICE``: no limit."""
    price: float = 0.0
    """What a draft token must be worth there; see ``Decision.draft_price``."""


STOCK = DraftOrder()


def drafts_as_decided(decision: Decision, table: RowTable, lengths: Sequence[int]) -> DraftOrder:
    """What a decision for this very step says.

    Args:
        lengths: what the engine can draft, ascending.
    """
    length = nearest(decision.draft_length, lengths)
    if length <= 0:
        return DraftOrder(length)
    if not decision.capped:
        return DraftOrder(length, budget=decision.draft_budget, price=decision.draft_price)
    caps = dict(zip(unpack("I", decision.capped), decision.caps, strict=True))
    return DraftOrder(
        length,
        tuple(
            (record.rid, caps[record.request_id])
            for record in table.records
            if record.request_id in caps
        ),
        decision.draft_budget,
        decision.draft_price,
    )


def drafts_by_orders(
    orders: Sequence[Band], mandatory_rows: int, lengths: Sequence[int]
) -> DraftOrder:
    """What standing orders say for a batch of this many mandatory rows."""
    if not orders:
        return STOCK
    band = next((band for band in orders if mandatory_rows <= band.max_rows), orders[-1])
    return DraftOrder(nearest(band.draft_tokens, lengths))


def nearest(wanted: int, lengths: Sequence[int]) -> int:
    """The longest of ``lengths`` that is no longer than ``wanted``, or else the shortest."""
    if wanted < 0 or not lengths:
        return OWN_CHOICE
    return max((length for length in lengths if length <= wanted), default=lengths[0])
