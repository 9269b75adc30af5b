"""Rejection sampling of draft chains (Leviathan et al., arXiv 2211.17192, algorithm 1)."""

from __future__ import annotations

import torch

from governor_kernels.categorical import draw
from governor_kernels.greedy_verify import Verified, as_verified


def verify_chain_by_rejection(
    candidates: torch.Tensor,
    flat_index: torch.Tensor,
    target_probs: torch.Tensor,
    draft_probs: torch.Tensor,
    coins: torch.Tensor,
    final_coins: torch.Tensor,
) -> Verified:
    """Accept each drafted token with probability `min(1, p / q)`, and mend the first refused one.

    Every token that a step adds has exactly the target's distribution `p`, given those before it,
    provided that the drafted tokens were drawn from `q`. The same as SGLang's Triton kernel
    `chain_speculative_sampling_triton`.

    Args:
        candidates: (rows, nodes) integers; the root, then the drafted tokens.
        flat_index: (rows, nodes) integers; place of each node among all nodes of the batch.
        target_probs: (rows, nodes, vocabulary) floats; `p` after each node.
        draft_probs: (rows, nodes - 1, vocabulary) floats; the `q` that each next token was drawn
            from. A row of NaN counts as zero.
        coins: (rows, at least nodes - 1) floats in [0, 1).
        final_coins: (rows,) floats in [0, 1); for the draw that ends a row's step.
    """
    rows, nodes = candidates.shape
    predicts = [0] * (rows * nodes)
    paths: list[list[int]] = []
    drafted, flat = candidates.tolist(), flat_index.tolist()
    coin_of, final_of = coins.tolist(), final_coins.tolist()
    for row in range(rows):
        node = 0
        while node + 1 < nodes:
            token = drafted[row][node + 1]
            target = float(target_probs[row, node, token])
            if not coin_of[row][node] * float(draft_probs[row, node, token]) < target:
                break
            predicts[flat[row][node]] = token
            node += 1
        weights = target_probs[row, node]
        if node + 1 < nodes:
            excess = (weights - draft_probs[row, node].nan_to_num(nan=0.0)).clamp(min=0)
            # Only rounding refuses a token where `p` is nowhere above `q`.
            weights = excess if bool((excess > 0).any()) else weights
        predicts[flat[row][node]] = draw(weights, final_of[row])
        paths.append(flat[row][: node + 1])
    return as_verified(predicts, paths, nodes, candidates.device)
