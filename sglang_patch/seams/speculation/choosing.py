"""Which nodes of the drafts a step verifies, and links that lead to no others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sglang_patch.apply.speculation import DraftOrder, Pace, worth
from sglang_patch.seams.speculation.chances import CHANCES
from sglang_patch.seams.speculation.notes import Drafted

FIRST = Pace()
_PACE = "governor_pace"
"""Attribute of SGLang's requests: the row's :class:`Pace`. Every rank keeps it, of results that
all ranks have."""


class Chosen(NamedTuple):
    """What is verified of a step's drafts."""

    caps: dict[str, int]
    """Draft tokens of each row, by request id."""
    kept: Any
    """(rows, nodes) bool, with every node its parent; None where every node is computed."""


def choose(
    order: DraftOrder, reqs: Sequence[Any], verification: Any, *, ragged: bool
) -> Chosen | None:
    """Choose the nodes to verify, and cut the links to all others.

    Args:
        reqs: SGLang's requests, one a row.
        verification: SGLang's verification input; its links are replaced, its tensors stay as they
            are, as SGLang may use them again.
        ragged: whether nodes that are not verified are not computed. Otherwise a budget would save
            nothing and is not spent.

    Returns:
        :class:`Chosen`; None if nothing is cut.
    """
    most = verification.retrieve_next_token.shape[1] - 1
    named = dict(order.caps)
    caps = [min(most, named.get(req.rid, most)) for req in reqs]
    shares = ragged and (0 <= order.budget < sum(caps) or order.price > 0)
    if not shares and min(caps, default=most) == most:
        return None
    if verification.topk == 1 and not shares:
        kept = _first_nodes(caps, verification.retrieve_next_token) if ragged else None
    else:
        kept = _worthiest(order if shares else None, reqs, caps, verification)
        caps = (kept.sum(dim=1) - 1).tolist()
        if ragged and min(caps) == most:
            return None
    if verification.topk == 1:
        verification.retrieve_next_token = cut(verification.retrieve_next_token, caps)
    else:
        _cut_trees(verification, kept)
    by_row = {req.rid: cap for req, cap in zip(reqs, caps, strict=True)}
    return Chosen(by_row, kept if ragged else None)


def _first_nodes(caps: Sequence[int], links: Any) -> Any:
    """Of chains the first are the likeliest, and nobody has to be asked.

    NOTE: caps are known to the host, and so is what is cut by them. Nothing here waits for a
    device.
    """
    import torch

    nodes = torch.arange(links.shape[1], device=links.device)
    return nodes <= links.new_tensor(caps).unsqueeze(1)


def _worthiest(
    order: DraftOrder | None, reqs: Sequence[Any], caps: Sequence[int], verification: Any
) -> Any:
    """The best nodes by the draft's own chances: of every row, or (``order``) of all together."""
    import torch
    from governor_kernels.draft_choice import likeliest_nodes, likeliest_prefixes

    value = getattr(verification, CHANCES)()
    budget, price = None, 0.0
    if order is not None:
        budget = order.budget if order.budget >= 0 else None
        price = order.price
        paces = value.new_tensor([getattr(req, _PACE, FIRST) for req in reqs])
        value = worth(value, paces[:, :1], paces[:, 1:])
    most = torch.tensor(caps, device=value.device)
    if verification.topk == 1:
        return likeliest_prefixes(value, most, budget, price)
    return likeliest_nodes(value, _parents_of(verification), most, budget, price)


def _cut_trees(verification: Any, kept: Any) -> None:
    from governor_kernels.tree_links import links_from_parents

    shorter = links_from_parents(_parents_of(verification).masked_fill(~kept, -1))
    verification.retrieve_next_token = shorter.first_child
    verification.retrieve_next_sibling = shorter.next_sibling


def note_paces(reqs: Sequence[Any], tokens: Sequence[int], step: Drafted) -> None:
    """Take note of the tokens that a step gave to its rows."""
    for req, count in zip(reqs, tokens, strict=True):
        setattr(req, _PACE, getattr(req, _PACE, FIRST).after(count, step.verified(req.rid)))


def _parents_of(verification: Any) -> Any:
    """Parents of all nodes, (rows, nodes) int64; -1 for roots and what cannot be reached."""
    from governor_kernels.tree_links import TreeLinks, parents_from_links

    links = verification.retrieve_next_token
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
