"""Draft trees out of a beam of drafted tokens (EAGLE-2, arXiv 2406.16858, section 4.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch

from governor_kernels.tree_links import TreeLinks, links_from_parents


class DraftTree(NamedTuple):
    """Trees of one size per batch."""

    depths: torch.Tensor
    """(rows, nodes) int64; 0 for the root."""
    visible: torch.Tensor
    """(rows, nodes, nodes) bool: node `i` sees node `j`, which is itself or an ancestor."""
    links: TreeLinks


def build_draft_tree(parent_list: torch.Tensor, selected: torch.Tensor, topk: int) -> DraftTree:
    """Put the selected tokens of a beam search together to one tree a row.

    A beam drafts `topk` tokens first and `topk * topk` in each later step, numbered as they come;
    those from `topk * g` to `topk * g + topk - 1` continue the token that `parent_list[:, g]`
    names (the root for `g` = 0).

    Args:
        parent_list: (rows, groups) int64, with `groups` = 0 where only the first step was drafted.
        selected: (rows, nodes - 1) int64, rising; the drafted tokens that are in the tree.
        topk: width of the beam.

    Returns:
        The trees. A token whose parent was not selected cannot be reached: it sees the root and
        itself, and nothing links to it. Ties of scores can bring that about.
    """
    parents = _parents(parent_list, selected, topk)
    rows, nodes = parents.shape
    visible = torch.eye(nodes, dtype=torch.bool, device=parents.device).repeat(rows, 1, 1)
    visible[:, :, 0] = True
    depths = torch.zeros_like(parents)
    ancestor = parents
    while bool((found := ancestor >= 0).any()):
        depths += found
        # NOTE: the root stands in for "none"; that it is visible is true for every node.
        visible.scatter_(2, ancestor.clamp(min=0).unsqueeze(2), True)
        ancestor = torch.where(found, parents.gather(1, ancestor.clamp(min=0)), -1)
    depths[:, 1:].clamp_(min=1)
    return DraftTree(depths, visible, links_from_parents(parents))


def _parents(parent_list: torch.Tensor, selected: torch.Tensor, topk: int) -> torch.Tensor:
    """(rows, nodes) int64: node number of each node's parent, -1 for the root and for orphans."""
    group = selected // topk
    parents = torch.full((len(selected), selected.shape[1] + 1), -1, device=selected.device)
    if parent_list.shape[1] == 0:
        parents[:, 1:] = torch.where(group == 0, 0, -1)
        return parents
    # Groups beyond the list cannot be: clamped so that a gather never reads outside it.
    named = parent_list.gather(1, group.clamp(max=parent_list.shape[1] - 1))
    is_parent = selected.unsqueeze(1) == named.unsqueeze(2)
    number = torch.arange(1, parents.shape[1], device=selected.device)
    found = torch.where(is_parent, number, -1).amax(-1)
    parents[:, 1:] = torch.where(group == 0, 0, found)
    return parents
