"""Verification of draft trees against the target's most likely tokens."""

from __future__ import annotations

from typing import NamedTuple

import torch

from governor_kernels.tree_links import TreeLinks


class Verified(NamedTuple):
    """The path that each row's step keeps."""

    predicts: torch.Tensor
    """(rows * nodes,) int32; the token that follows each accepted node, by flat index, else 0."""
    accept_index: torch.Tensor
    """(rows, width) int32; flat index of the accepted nodes from the root on, then -1."""
    correct_drafts: torch.Tensor
    """(rows,) int32; accepted nodes without the root, at most width - 1."""


def verify_greedy(
    candidates: torch.Tensor, links: TreeLinks, target_tokens: torch.Tensor, width: int
) -> Verified:
    """Follow the target's choices down each tree, for as long as they were drafted.

    Args:
        candidates: (rows, nodes) integers; token of each node.
        links: of the same trees.
        target_tokens: (rows, nodes) integers; the target's most likely token after each node.
        width: nodes on the longest path that may be accepted, the root included.
    """
    rows, nodes = candidates.shape
    predicts = [0] * (rows * nodes)
    paths: list[list[int]] = []
    drafted = candidates.tolist()
    wanted = target_tokens.reshape(rows, nodes).tolist()
    flat, first, sibling = (link.tolist() for link in links)
    for row in range(rows):
        node = 0
        path = [flat[row][0]]
        while True:
            token = wanted[row][node]
            predicts[flat[row][node]] = token
            child = first[row][node] if len(path) < width else -1
            while child >= 0 and drafted[row][child] != token:
                child = sibling[row][child]
            if child < 0:
                break
            node = child
            path.append(flat[row][node])
        paths.append(path)
    return as_verified(predicts, paths, width, candidates.device)


def as_verified(
    predicts: list[int], paths: list[list[int]], width: int, device: torch.device
) -> Verified:
    """Turn accepted paths, each a list of flat indices from the root on, into tensors."""
    padded = [path + [-1] * (width - len(path)) for path in paths]
    return Verified(
        predicts=torch.tensor(predicts, dtype=torch.int32, device=device),
        accept_index=torch.tensor(padded, dtype=torch.int32, device=device).view(-1, width),
        correct_drafts=torch.tensor(
            [len(path) - 1 for path in paths], dtype=torch.int32, device=device
        ),
    )
