"""KV slots of a stretch of tokens per row: out of the table of slots, and into it."""

from __future__ import annotations

import torch


def gather_row_slots(
    table: torch.Tensor, rows: torch.Tensor, starts: torch.Tensor, ends: torch.Tensor
) -> torch.Tensor:
    """KV slots of the tokens from `starts` to `ends` of each row, one row after the other.

    Args:
        table: (requests, context) integers; `table[r, t]` is the slot of token `t` of request `r`.
        rows: (rows,) integers; which request each row is.
        starts: (rows,) integers; first token wanted.
        ends: (rows,) integers; token after the last one wanted, not below `starts`.

    Returns:
        (sum of `ends - starts`,) int64.
    """
    owners, tokens = _positions(rows, starts, ends)
    return table[owners, tokens].to(torch.int64)


def scatter_row_slots(
    table: torch.Tensor,
    rows: torch.Tensor,
    starts: torch.Tensor,
    ends: torch.Tensor,
    slots: torch.Tensor,
) -> None:
    """Write `slots` into `table`, in the order in which :func:`gather_row_slots` reads them.

    Args:
        table, rows, starts, ends: as there; `table` is changed.
        slots: at least (sum of `ends - starts`,) integers; more are ignored.
    """
    owners, tokens = _positions(rows, starts, ends)
    table[owners, tokens] = slots[: len(tokens)].to(table.dtype)


def _positions(
    rows: torch.Tensor, starts: torch.Tensor, ends: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices into the table: request and token of each element, both int64."""
    counts = (ends - starts).to(torch.int64)
    owners = torch.repeat_interleave(rows.to(torch.int64), counts)
    # Every element counts on from its row's start: its place in the output less where the row began
    shift = starts.to(torch.int64) - (counts.cumsum(0) - counts)
    places = torch.arange(len(owners), dtype=torch.int64, device=owners.device)
    return owners, places + torch.repeat_interleave(shift, counts)
