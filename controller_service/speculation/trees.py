"""What the nodes of a request's best draft tree are worth.

A node is a path of choices, one per position. The draft's r-th choice for a position is taken to
be right with chance ``a * (1 - a) ** (r - 1)``: each further choice is as good as the first, given
that those before it are wrong. A path's chance is the product over its positions, so that it never
rises with depth, and the best n nodes always hold their parents.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from controller_service.speculation.drafting import Floats

BUCKETS = 64
"""Levels of acceptance for which trees are worked out."""


def levels() -> Floats:
    """The levels, shape ``(BUCKETS,)``."""
    return (np.arange(BUCKETS) + 0.5) / BUCKETS


def bucket_of(acceptance: Floats) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Index of the level nearest to each acceptance."""
    index: np.ndarray[tuple[int], np.dtype[np.intp]] = np.minimum(
        (acceptance * BUCKETS).astype(np.intp), BUCKETS - 1
    )
    return index


@lru_cache(maxsize=256)
def node_chances(width: int, depth: int, nodes: int) -> Floats:
    """Chances of the best ``nodes`` nodes of at most ``depth`` positions, best first.

    Args:
        width: choices per position; 1 is a chain.

    Returns:
        Shape ``(BUCKETS, nodes)``; 0 where the tree has no more nodes. The n-th entry is what the
        n-th node adds to the tokens that are expected to be accepted. Read only.
    """
    paths = _paths(width, depth)  # (depth, sum of ranks): how many nodes
    a = levels()[:, None]
    chances = a ** paths[:, 0] * (1.0 - a) ** paths[:, 1]
    order = np.argsort(-chances, axis=1, kind="stable")
    table = np.zeros((BUCKETS, nodes))
    for bucket in range(BUCKETS):
        ranked = order[bucket]
        spread = np.repeat(chances[bucket, ranked], np.minimum(paths[ranked, 2], nodes).astype(int))
        table[bucket, : min(nodes, len(spread))] = spread[:nodes]
    table.flags.writeable = False
    return table


def _paths(width: int, depth: int) -> Floats:
    """Nodes by what decides their chance: depth, how far from first choices, how many."""
    found: list[tuple[float, float, float]] = []
    ways: Floats = np.ones(1)
    for level in range(1, depth + 1):
        ways = np.asarray(np.convolve(ways, np.ones(width)), dtype=np.float64)
        found.extend((float(level), float(away), float(count)) for away, count in enumerate(ways))
    return np.array(found).reshape(-1, 3)
