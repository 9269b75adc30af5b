"""Greedy verification, against the longest path whose every token the target would have said."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import Parents, labelled_trees, path_to

torch = pytest.importorskip("torch")

from governor_kernels.greedy_verify import verify_greedy  # noqa: E402
from governor_kernels.tree_links import links_from_parents  # noqa: E402

VOCABULARY = 10


def longest_said_path(
    parents: Parents, tokens: list[int], target: list[int], width: int
) -> list[int]:
    """Nodes of the longest path, at most `width` of them, that the target agrees with."""
    agreed = [
        path
        for path in (path_to(parents, node) for node in range(len(parents)))
        if len(path) <= width
        and all(target[above] == tokens[below] for above, below in pairwise(path))
    ]
    return max(agreed, key=len)


@given(labelled_trees(VOCABULARY), st.data())
def test_the_accepted_path_is_the_longest_that_the_target_says(
    drawn: tuple[list[Parents], list[list[int]]], data: st.DataObject
) -> None:
    trees, tokens = drawn
    nodes = len(trees[0])
    width = data.draw(st.integers(1, nodes))
    said = st.lists(st.integers(0, VOCABULARY - 1), min_size=nodes, max_size=nodes)
    # Most of the time what some child says, or paths would hardly ever be longer than one.
    target = []
    for parents, labels in zip(trees, tokens, strict=True):
        choices = data.draw(said)
        for node in range(nodes):
            children = [labels[other] for other in range(nodes) if parents[other] == node]
            if children and data.draw(st.integers(0, 3)):
                choices[node] = data.draw(st.sampled_from(children))
        target.append(choices)

    verified = verify_greedy(
        torch.tensor(tokens), links_from_parents(torch.tensor(trees)), torch.tensor(target), width
    )
    assert {tensor.dtype for tensor in verified} == {torch.int32}
    predicts = [0] * (len(trees) * nodes)
    for row, parents in enumerate(trees):
        path = longest_said_path(parents, tokens[row], target[row], width)
        flat = [row * nodes + node for node in path]
        assert verified.accept_index[row].tolist() == flat + [-1] * (width - len(path))
        assert verified.correct_drafts[row] == len(path) - 1
        for node in path:
            predicts[row * nodes + node] = target[row][node]
    assert verified.predicts.tolist() == predicts


def test_a_batch_of_no_rows_verifies_to_nothing() -> None:
    empty = torch.empty((0, 4), dtype=torch.int64)
    verified = verify_greedy(empty, links_from_parents(empty), empty, 4)
    assert [tuple(tensor.shape) for tensor in verified] == [(0,), (0, 4), (0,)]
