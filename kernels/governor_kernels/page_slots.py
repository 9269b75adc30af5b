"""KV slots of new tokens in pages: the rest of a row's last page, then new pages."""

from __future__ import annotations

import torch
from torch.nn.functional import pad


def extended_slots(
    starts: torch.Tensor,
    ends: torch.Tensor,
    last_slots: torch.Tensor,
    free_pages: torch.Tensor,
    page_size: int,
) -> torch.Tensor:
    """Slots of the tokens from `starts` to `ends` of each row, one row after the other.

    A row fills its last page first. Then it takes pages from the front of `free_pages`, after those
    of the rows before it. Where these run short, the slots that are missing lie in page 0, which
    belongs to nobody; the caller counts the pages and gives up.

    Args:
        starts: (rows,) integers; tokens that each row has slots for.
        ends: (rows,) integers; tokens that it is to have, not below `starts`.
        last_slots: (rows,) integers; slot of each row's last token; ignored where its last page
            is full.
        free_pages: (pages,) integers.
        page_size: tokens of a page.

    Returns:
        (sum of `ends - starts`,) int64.
    """
    starts, ends = starts.to(torch.int64), ends.to(torch.int64)
    pages_before = -(-starts // page_size)
    pages_new = -(-ends // page_size) - pages_before
    first_page = pages_new.cumsum(0) - pages_new
    wanted = int(pages_new.sum())
    taken = free_pages[:wanted].to(torch.int64)
    taken = pad(taken, (0, wanted - len(taken)))

    counts = ends - starts
    rows = torch.repeat_interleave(torch.arange(len(counts)), counts)
    places = torch.arange(len(rows)) - (counts.cumsum(0) - counts)[rows]
    tokens = starts[rows] + places
    page = tokens // page_size - pages_before[rows]
    is_new = page >= 0
    slots = last_slots.to(torch.int64)[rows] + 1 + places
    slots[is_new] = (
        taken[(first_page[rows] + page)[is_new]] * page_size + (tokens % page_size)[is_new]
    )
    return slots
