"""Draft trees for the tests: random ones, and their paths listed without following any link."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

Parents = list[int]
"""Parent of each node, -1 for the root; parents come before their children."""


@st.composite
def parents_of_trees(draw: st.DrawFn, max_nodes: int = 9, rows: int | None = None) -> list[Parents]:
    """Trees of one size, one a row."""
    nodes = draw(st.integers(1, max_nodes))
    count = rows if rows is not None else draw(st.integers(1, 4))
    return [
        [-1, *(draw(st.integers(0, node - 1)) for node in range(1, nodes))] for _ in range(count)
    ]


@st.composite
def labelled_trees(
    draw: st.DrawFn, vocabulary: int, max_nodes: int = 9
) -> tuple[list[Parents], list[list[int]]]:
    """Trees and the token of each node; siblings have different tokens."""
    trees = []
    for parents in draw(parents_of_trees(max_nodes)):
        tokens = [draw(st.integers(0, vocabulary - 1))]
        for node in range(1, len(parents)):
            taken = {tokens[other] for other in range(1, node) if parents[other] == parents[node]}
            free = [token for token in range(vocabulary) if token not in taken]
            tokens.append(draw(st.sampled_from(free)))
        trees.append((parents, tokens))
    return [parents for parents, _ in trees], [tokens for _, tokens in trees]


def path_to(parents: Parents, node: int) -> list[int]:
    """Nodes from the root down to `node`, both included."""
    path = [node]
    while parents[path[0]] >= 0:
        path.insert(0, parents[path[0]])
    return path


def mask_of(trees: Sequence[Parents]) -> list[list[list[bool]]]:
    """Which nodes each node sees: itself and its ancestors."""
    return [
        [
            [other in path_to(parents, node) for other in range(len(parents))]
            for node in range(len(parents))
        ]
        for parents in trees
    ]
