"""Links of draft trees, from parents and from masks."""

from __future__ import annotations

import pytest
from hypothesis import given
from trees import Parents, mask_of, parents_of_trees, path_to

torch = pytest.importorskip("torch")

from governor_kernels.tree_links import (  # noqa: E402
    TreeLinks,
    links_from_parents,
    parents_from_links,
    parents_from_mask,
)


@given(parents_of_trees())
def test_links_list_every_nodes_children_in_order(trees: list[Parents]) -> None:
    nodes = len(trees[0])
    links = links_from_parents(torch.tensor(trees))
    assert links.flat_index.flatten().tolist() == list(range(len(trees) * nodes))
    for row, parents in enumerate(trees):
        for node in range(nodes):
            listed = []
            child = int(links.first_child[row, node])
            while child >= 0:
                listed.append(child)
                child = int(links.next_sibling[row, child])
            assert listed == [other for other in range(nodes) if parents[other] == node]


@given(parents_of_trees())
def test_parents_and_depths_come_back_from_the_mask(trees: list[Parents]) -> None:
    parents, depths = parents_from_mask(torch.tensor(mask_of(trees)).to(torch.uint8))
    assert parents.tolist() == trees
    assert depths.tolist() == [
        [len(path_to(tree, node)) - 1 for node in range(len(tree))] for tree in trees
    ]


def test_nodes_outside_the_tree_are_not_linked() -> None:
    """The n-gram corpus fills up with nodes that see nothing but themselves."""
    mask = torch.eye(4, dtype=torch.bool).unsqueeze(0)
    mask[0, 1, 0] = True
    parents, depths = parents_from_mask(mask)
    links = links_from_parents(parents)
    assert parents.tolist() == [[-1, 0, -1, -1]]
    assert depths.tolist() == [[0, 1, 0, 0]]
    assert links.first_child.tolist() == [[1, -1, -1, -1]]
    assert links.next_sibling.tolist() == [[-1] * 4]


@given(parents_of_trees())
def test_parents_come_back_from_links(trees: list[Parents]) -> None:
    links = links_from_parents(torch.tensor(trees))
    assert parents_from_links(links).tolist() == trees


def test_siblings_may_be_listed_in_any_order() -> None:
    """The root's children are 3, 1 and 2, node 4 continues node 1, and nothing leads to node 5."""
    none = -1
    first = torch.tensor([[3, 4, none, none, none, none]])
    sibling = torch.tensor([[none, 2, none, 1, none, none]])
    links = TreeLinks(torch.arange(6).view(1, 6), first, sibling)
    assert parents_from_links(links).tolist() == [[-1, 0, 0, 0, 1, -1]]
