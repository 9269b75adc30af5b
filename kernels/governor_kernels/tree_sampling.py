"""Verification of draft trees by sampling from the target's distribution."""

from __future__ import annotations

import torch

from governor_kernels.categorical import draw
from governor_kernels.greedy_verify import Verified, as_verified
from governor_kernels.tree_links import TreeLinks


def verify_by_sampling(
    candidates: torch.Tensor,
    links: TreeLinks,
    target_probs: torch.Tensor,
    coins: torch.Tensor,
    final_coins: torch.Tensor,
    width: int,
    *,
    threshold_single: float = 1.0,
    threshold_acc: float = 1.0,
) -> Verified:
    """Accept a child with the probability that the target gives its token, else draw another one.

    With both thresholds at 1 every token that a step adds has exactly the target's distribution,
    given those before it, whatever was drafted: the children of a node are tried in turn against
    one coin and the sum of their probabilities, and what is drawn when all fail is drawn from the
    probabilities of the other tokens. Lower thresholds accept more and bend the distribution. The
    same as SGLang's CUDA kernel `tree_speculative_sampling_target_only`.

    Args:
        candidates: (rows, nodes) integers; token of each node. The children of a node differ.
        links: of the same trees.
        target_probs: (rows, nodes, vocabulary) floats; distribution after each node.
        coins: (rows, nodes) floats in [0, 1); node `i`'s decides about its children.
        final_coins: (rows,) floats in [0, 1); for the draw that ends a row's step.
        width: nodes on the longest path that may be accepted, the root included.
        threshold_single: a child of at least this probability is accepted whatever the coin.
        threshold_acc: sums of probabilities are divided by this before they meet the coin.
    """
    rows, nodes = candidates.shape
    scale = max(threshold_acc, 1e-9)
    predicts = [0] * (rows * nodes)
    paths: list[list[int]] = []
    drafted, coin_of, final_of = candidates.tolist(), coins.tolist(), final_coins.tolist()
    flat, first, sibling = (link.tolist() for link in links)
    for row in range(rows):
        node = 0
        path = [flat[row][0]]
        while True:
            tried: list[int] = []
            passed = 0.0
            child = first[row][node] if len(path) < width else -1
            while child >= 0:
                token = drafted[row][child]
                chance = float(target_probs[row, node, token])
                passed += chance
                if coin_of[row][node] <= passed / scale or chance >= threshold_single:
                    break
                tried.append(token)
                child = sibling[row][child]
            if child < 0:
                predicts[flat[row][node]] = _draw_other(
                    target_probs[row, node], tried, final_of[row]
                )
                break
            predicts[flat[row][node]] = drafted[row][child]
            node = child
            path.append(flat[row][node])
        paths.append(path)
    return as_verified(predicts, paths, width, candidates.device)


def _draw_other(probs: torch.Tensor, tried: list[int], coin: float) -> int:
    """Draw from `probs`, without the tokens that were tried and refused."""
    others = probs.clone()
    others[tried] = 0.0
    # Only rounding refuses tokens that together have all the probability.
    return draw(others if bool((others > 0).any()) else probs, coin)
