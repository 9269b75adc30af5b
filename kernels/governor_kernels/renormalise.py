"""Top-k and top-p: what is cut off becomes zero, the rest sums to one again."""

from __future__ import annotations

import torch


def top_k_renormalise(probs: torch.Tensor, top_ks: torch.Tensor) -> torch.Tensor:
    """Keep each row's `top_ks` most likely tokens, and those that tie with the last of them.

    Args:
        probs: (rows, vocabulary) floats.
        top_ks: (rows,) integers, at least 1; above the vocabulary's size, all are kept.

    Returns:
        (rows, vocabulary) floats.
    """
    last = top_ks.to(torch.int64).clamp(min=1, max=probs.shape[-1]).unsqueeze(1) - 1
    lowest = probs.sort(dim=-1, descending=True).values.gather(1, last)
    kept = torch.where(probs >= lowest, probs, 0.0)
    return kept / kept.sum(-1, keepdim=True)


def top_p_renormalise(probs: torch.Tensor, top_ps: torch.Tensor) -> torch.Tensor:
    """Keep each row's most likely tokens, as few as have probability `top_ps` together.

    Args:
        probs: (rows, vocabulary) floats that sum to one.
        top_ps: (rows,) floats above 0; at 1 all are kept.

    Returns:
        (rows, vocabulary) floats.
    """
    ranked, order = probs.sort(dim=-1, descending=True)
    before = ranked.cumsum(-1) - ranked
    wanted = top_ps.unsqueeze(1)
    # At 1 nothing is cut, even where rounding lets the sum before a token reach 1.
    kept = torch.where((before < wanted) | (wanted >= 1), ranked, 0.0)
    kept = torch.zeros_like(probs).scatter_(1, order, kept)
    return kept / kept.sum(-1, keepdim=True)
