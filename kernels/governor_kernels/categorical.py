"""One draw from unnormalised weights by a given uniform number."""

from __future__ import annotations

import torch


def draw(weights: torch.Tensor, coin: float) -> int:
    """Index at which the running sum of `weights` passes `coin` times their total.

    Args:
        weights: (vocabulary,) floats, none negative, not all zero.
        coin: uniform in [0, 1).

    Returns:
        An index of positive weight. (SGLang's kernels return the last index of the vocabulary
        where rounding lets no sum pass, whatever its weight.)

    Raises:
        ValueError: all weights are zero.
    """
    # Summed in float64: over a large vocabulary float32 drops the smallest weights.
    sums = weights.to(torch.float64).cumsum(0)
    total = float(sums[-1])
    if not total > 0.0:
        raise ValueError("no token has a positive weight: there is nothing to draw from")
    at = int(torch.searchsorted(sums, coin * total, right=True))
    if at == len(sums):
        at = int(weights.nonzero()[-1])
    return at
