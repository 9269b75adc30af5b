"""The links by which a draft tree is walked, from its mask or from its parents."""

from __future__ import annotations

from typing import NamedTuple

import torch


class TreeLinks(NamedTuple):
    """Draft trees of one shape per batch, each (rows, nodes) int64, -1 for none."""

    flat_index: torch.Tensor
    """Place of the node among all nodes of the batch: `row * nodes + node`."""
    first_child: torch.Tensor
    """Lowest-numbered child. SGLang calls it `retrieve_next_token`."""
    next_sibling: torch.Tensor
    """Next higher child of the same parent."""


def parents_from_mask(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Parents and depths of the nodes of trees that are given by who sees whom.

    Args:
        mask: (rows, nodes, nodes), non-zero where node `j` is node `i` or an ancestor of it;
            what is said of later nodes (`j > i`) is ignored.

    Returns:
        Parents and depths, both (rows, nodes) int64. A node without ancestors has parent -1 and
        depth 0; where it is not the root it is not part of the tree.
    """
    ancestors = mask.to(torch.bool).tril(-1)
    order = torch.arange(mask.shape[-1], dtype=torch.int64, device=mask.device)
    # Parents come before their children, so the nearest ancestor is the highest-numbered one.
    parents = torch.where(ancestors, order, -1).amax(-1)
    return parents, ancestors.sum(-1)


def links_from_parents(parents: torch.Tensor) -> TreeLinks:
    """Links of trees that are given by each node's parent.

    Args:
        parents: (rows, nodes) int64; -1 for the root, and for nodes that are not part of the tree.
    """
    rows, nodes = parents.shape
    order = torch.arange(nodes, dtype=torch.int64, device=parents.device)
    none = nodes  # above every node, so that a minimum ignores it
    is_child = parents.unsqueeze(1) == order.unsqueeze(1)
    first = torch.where(is_child, order, none).amin(-1)
    alike = (parents.unsqueeze(2) == parents.unsqueeze(1)) & (parents.unsqueeze(2) >= 0)
    later = order > order.unsqueeze(1)
    sibling = torch.where(alike & later, order, none).amin(-1)
    return TreeLinks(
        flat_index=torch.arange(rows * nodes, device=parents.device).view(rows, nodes),
        first_child=torch.where(first == none, -1, first),
        next_sibling=torch.where(sibling == none, -1, sibling),
    )


def parents_from_links(links: TreeLinks) -> torch.Tensor:
    """Undo :func:`links_from_parents`, whatever the order of siblings.

    Returns:
        Parents, (rows, nodes) int64; -1 for the root and for nodes that nothing links to.
    """
    rows, nodes = links.first_child.shape
    order = torch.arange(nodes, dtype=torch.int64, device=links.first_child.device)
    child, sibling = (
        torch.where(link < 0, nodes, link) for link in (links.first_child, links.next_sibling)
    )
    parents = torch.full((rows, nodes + 1), -1, dtype=torch.int64, device=order.device)
    parents.scatter_(1, child, order.expand(rows, nodes))
    before = torch.full_like(parents, -1)
    while not torch.equal(before[:, :nodes], parents[:, :nodes]):
        before = parents.clone()
        parents.scatter_(1, sibling, before[:, :nodes])
    return parents[:, :nodes]
