"""Attention of a row's new tokens over KV that lies scattered in slots."""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention


def attend_slots(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    slots: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
) -> torch.Tensor:
    """Attention of one row.

    Args:
        query: (tokens, query heads, head size).
        keys: (all slots, KV heads, head size); KV heads divide the query heads.
        values: (all slots, KV heads, value size).
        slots: (context,) int64; where the row's keys and values lie.
        mask: (tokens, context) bool, True where a token sees a key; None if every one sees all.
        scaling: factor of the scores.

    Returns:
        (tokens, query heads, value size), of the type of `query`.
    """
    key = keys[slots].to(query.dtype).transpose(0, 1)
    value = values[slots].to(query.dtype).transpose(0, 1)
    attended = scaled_dot_product_attention(
        query.transpose(0, 1).unsqueeze(0),
        key.unsqueeze(0),
        value.unsqueeze(0),
        attn_mask=mask,
        scale=scaling,
        enable_gqa=query.shape[1] != keys.shape[1],
    )
    return attended.squeeze(0).transpose(0, 1)
