"""Draft trees: the best nodes, parents first, worth what verification gives."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from governor_sim.drafting import best_tree
from hypothesis import given, settings
from hypothesis import strategies as st

from controller_service.speculation.trees import BUCKETS, bucket_of, levels, node_chances

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 24))


def chance(path: tuple[int, ...], level: float) -> float:
    return float(np.prod([level * (1 - level) ** (choice - 1) for choice in path]))


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.integers(0, BUCKETS - 1))
def test_chances_are_those_of_the_best_paths(shape: tuple[int, int, int], bucket: int) -> None:
    width, depth, nodes = shape
    level = float(levels()[bucket])
    every = [
        chance(path, level)
        for length in range(1, depth + 1)
        for path in itertools.product(range(1, width + 1), repeat=length)
    ]
    best = sorted(every, reverse=True)[:nodes]
    found = node_chances(width, depth, nodes)[bucket]
    assert found[: len(best)] == pytest.approx(best)
    assert not found[len(best) :].any()
    assert np.all(np.diff(found) <= 0)


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.floats(0.02, 0.98))
def test_the_engines_tree_holds_every_nodes_parent_and_is_worth_as_much(
    shape: tuple[int, int, int], level: float
) -> None:
    width, depth, nodes = shape
    level = float(levels()[bucket_of(np.array([level]))[0]])
    tree = best_tree(level, width, depth, nodes)
    assert len(tree) <= nodes
    assert all(len(path) == 1 or path[:-1] in tree for path in tree)
    worth = sum(chance(path, level) for path in tree)
    promised = node_chances(width, depth, nodes)[bucket_of(np.array([level]))[0]].sum()
    assert worth == pytest.approx(promised)
