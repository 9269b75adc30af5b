"""Which drafted nodes are verified: the likeliest of each row, and of all rows together."""

from __future__ import annotations

import torch


def likeliest_nodes(
    worth: torch.Tensor,
    parents: torch.Tensor,
    caps: torch.Tensor,
    budget: int | None = None,
    least: float = 0.0,
) -> torch.Tensor:
    """The worthiest nodes of draft trees, parents before children.

    A path is no likelier than its beginning. So the best nodes of a row hold the parents of each of
    them, and the best of all rows, each within its cap, are the best way to spend a budget. Of
    equal nodes the lower-numbered one goes first, and that of the earlier row.

    Args:
        worth: (rows, nodes) floating point; what verifying each node is worth, such as the chance
            of its path. Where it rises from parent to child, the parent's counts; NaN counts as 0.
        parents: (rows, nodes) int64, lower-numbered than their children; -1 for the root, which is
            node 0, and for nodes that are not part of the tree.
        caps: (rows,) integers, not negative; most drafted nodes of each row.
        budget: most drafted nodes of all rows together, not negative; None: as many as the caps
            allow.
        least: nodes that are worth less are left out.

    Returns:
        (rows, nodes) bool, every root among them; a node's parent is, if the node is. As many nodes
        as caps, budget and ``least`` allow; never one that is not part of the tree.
    """
    rows, nodes = worth.shape
    nothing = -torch.inf
    best = worth.nan_to_num(nan=0.0)
    best[:, 0] = torch.inf
    for node in range(1, nodes):
        parent = parents[:, node]
        reached = best.gather(1, parent.clamp(min=0).unsqueeze(1)).squeeze(1)
        best[:, node] = torch.where(parent < 0, nothing, best[:, node].minimum(reached))
    kept = torch.zeros((rows, nodes), dtype=torch.bool, device=worth.device)
    drafted = best[:, 1:]
    ranked = drafted.argsort(dim=1, descending=True, stable=True)
    within = torch.arange(nodes - 1, device=worth.device) < caps.unsqueeze(1)
    kept[:, 1:].scatter_(1, ranked, within)
    kept[:, 1:] &= (drafted > nothing) & (drafted >= least)
    if budget is not None:
        spent = torch.zeros_like(kept[:, 1:]).flatten()
        offered = torch.where(kept[:, 1:], drafted, nothing).flatten()
        spent[offered.argsort(descending=True, stable=True)[:budget]] = True
        kept[:, 1:] &= spent.view(rows, nodes - 1)
    kept[:, 0] = True
    return kept


def likeliest_prefixes(
    worth: torch.Tensor, caps: torch.Tensor, budget: int | None = None, least: float = 0.0
) -> torch.Tensor:
    """:func:`likeliest_nodes` of draft chains, in a few operations however long they are.

    Args:
        worth: (rows, nodes) floating point, the root first.
        caps, budget, least: as there.

    Returns:
        (rows, nodes) bool; of each row its first ones.
    """
    drafted = worth[:, 1:].nan_to_num(nan=0.0).cummin(dim=1).values
    place = torch.arange(drafted.shape[1], device=worth.device)
    kept = (place < caps.unsqueeze(1)) & (drafted >= least)
    if budget is not None and budget < int(kept.sum()):
        offered = drafted.masked_fill(~kept, -torch.inf).flatten()
        spent = torch.zeros_like(kept).flatten()
        spent[offered.argsort(descending=True, stable=True)[:budget]] = True
        kept &= spent.view_as(kept)
    return torch.cat((kept.new_ones((len(kept), 1)), kept), dim=1)
