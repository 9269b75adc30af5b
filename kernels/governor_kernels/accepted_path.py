"""What follows from an accepted path: the slots that stay, and the token drafted from next."""

from __future__ import annotations

import torch


def accepted_slots(accept_index: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """KV slots of the accepted nodes, without gaps, in the order of rows and then of depth.

    Args:
        accept_index: (rows, width) integers; flat index of each accepted node, -1 beyond the path.
        slots: (rows * nodes,) integers; the slot that each node was computed into.

    Returns:
        (accepted nodes,) of the type of `slots`.
    """
    flat = accept_index.flatten().to(torch.int64)
    return slots[flat[flat >= 0]]


def bonus_tokens(accept_tokens: torch.Tensor, accept_lens: torch.Tensor) -> torch.Tensor:
    """Last token of each row's step: the one that the target added to the accepted drafts.

    Args:
        accept_tokens: (rows, width) integers; tokens of the step, from the left.
        accept_lens: (rows,) integers, 1 to width; how many they are, the bonus token included.

    Returns:
        (rows,) of the type of `accept_tokens`.
    """
    last = accept_lens.to(torch.int64).unsqueeze(1) - 1
    return accept_tokens.gather(1, last).squeeze(1)
