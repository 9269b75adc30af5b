"""Which nodes of the drafts a step verifies, and links that lead to no others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sglang_patch.apply.speculation import FIRST_PACE, DraftOrder, next_pace
from sglang_patch.seams.speculation.chances import CHANCES

_PACE = "governor_pace"
"""Attribute of SGLang's requests: tokens a step that the row was given of late. Every rank keeps
it, of results that all ranks have."""


def choose(order: DraftOrder, reqs: Sequence[Any], verification: Any, *, takes_budget: bool) -> Any:
    """Choose the nodes to verify, and cut the links to all others.

    Args:
        reqs: SGLang's requests, one a row.
        verification: SGLang's verification input; its links are replaced, its tensors stay as they
            are, as SGLang may use them again.
        takes_budget: whether a budget is spent; it would save nothing where every node is computed.

    Returns:
        (rows, nodes) bool, with every node its parent; None if nothing is cut.
    """
    import torch
    from governor_kernels.draft_choice import likeliest_nodes
    from governor_kernels.tree_links import links_from_parents

    links = verification.retrieve_next_token
    most = links.shape[1] - 1
    named = dict(order.caps)
    caps = [min(most, named.get(req.rid, most)) for req in reqs]
    budget = order.budget if takes_budget and 0 <= order.budget < sum(caps) else None
    if budget is None and min(caps, default=most) == most:
        return None
    is_chain = verification.topk == 1
    parents = _parents_of(verification)
    if is_chain and budget is None:
        worth = torch.ones(links.shape, device=links.device)  # the first are the likeliest
    else:
        worth = getattr(verification, CHANCES)()
    if budget is not None:
        paces = [getattr(req, _PACE, FIRST_PACE) for req in reqs]
        worth = worth / worth.new_tensor(paces).unsqueeze(1)
    kept = likeliest_nodes(worth, parents, torch.tensor(caps, device=links.device), budget)
    if is_chain:
        verification.retrieve_next_token = cut(links, (kept.sum(dim=1) - 1).tolist())
    else:
        shorter = links_from_parents(parents.masked_fill(~kept, -1))
        verification.retrieve_next_token = shorter.first_child
        verification.retrieve_next_sibling = shorter.next_sibling
    return kept


def caps_of(reqs: Sequence[Any], kept: Any) -> dict[str, int]:
    """Draft tokens that are verified for each row, by request id."""
    counts = (kept.sum(dim=1) - 1).tolist()
    return {req.rid: count for req, count in zip(reqs, counts, strict=True)}


def note_paces(reqs: Sequence[Any], tokens: Sequence[int]) -> None:
    """Take note of the tokens that a step gave to its rows."""
    for req, count in zip(reqs, tokens, strict=True):
        setattr(req, _PACE, next_pace(getattr(req, _PACE, FIRST_PACE), count))


def _parents_of(verification: Any) -> Any:
    """Parents of all nodes, (rows, nodes) int64; -1 for roots and what cannot be reached."""
    import torch
    from governor_kernels.tree_links import TreeLinks, parents_from_links

    links = verification.retrieve_next_token
    if verification.topk == 1:
        return torch.arange(-1, links.shape[1] - 1, device=links.device).expand(links.shape)
    return parents_from_links(
        TreeLinks(verification.retrieve_index, links, verification.retrieve_next_sibling)
    )


def cut(links: Any, caps: Sequence[int | None]) -> Any:
    """Draft chains whose rows end at their own caps.

    Args:
        links: (rows, nodes) int64; the next node of each node of a chain, -1 behind its last. The
            root is not drafted, so that node ``k`` is a row's ``k``-th draft token.
        caps: per row, draft tokens that may be accepted; None: all of them.

    Returns:
        A tensor of its own: SGLang may use the one it gave again.
    """
    last = links.shape[1] - 1
    ends = [(row, cap) for row, cap in enumerate(caps) if cap is not None and cap < last]
    if not ends:
        return links
    shorter = links.clone()
    rows, nodes = (links.new_tensor(part) for part in zip(*ends, strict=True))
    shorter[rows, nodes] = -1
    return shorter
