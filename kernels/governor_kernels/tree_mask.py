"""Masks of tree attention in the flat layout that attention kernels read."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def flatten_full_mask(visible: torch.Tensor, prefix_lens: Sequence[int]) -> torch.Tensor:
    """Masks over prefix and tree, one row's after the other's.

    Args:
        visible: (rows, nodes, nodes) bool; which nodes of its tree each node sees.
        prefix_lens: tokens before the root of each row; every node sees all of them.

    Returns:
        (sum over rows of `nodes * (prefix + nodes)`,) bool.
    """
    nodes = visible.shape[1]
    parts = []
    for tree, prefix in zip(visible, prefix_lens, strict=True):
        before = torch.ones((nodes, prefix), dtype=torch.bool, device=visible.device)
        parts.append(torch.cat((before, tree), dim=1).flatten())
    return torch.cat(parts) if parts else visible.new_empty((0,))


def split_full_mask(
    mask: torch.Tensor, prefix_lens: Sequence[int], nodes: Sequence[int]
) -> list[torch.Tensor]:
    """Undo :func:`flatten_full_mask`; trees may differ in size from row to row.

    Args:
        mask: the flat mask, bool; longer than needed is allowed.
        prefix_lens: tokens before the root of each row.
        nodes: nodes of each row's tree.

    Returns:
        Per row a view (nodes, prefix + nodes).

    Raises:
        ValueError: the mask is too short for these rows.
    """
    sizes = [count * (prefix + count) for prefix, count in zip(prefix_lens, nodes, strict=True)]
    if mask.numel() < sum(sizes):
        raise ValueError(
            f"mask has {mask.numel()} elements, these rows need {sum(sizes)}: it was made for "
            "other lengths, or for trees without their prefix"
        )
    parts = torch.split(mask[: sum(sizes)], sizes)
    return [part.view(count, -1) for part, count in zip(parts, nodes, strict=True)]
