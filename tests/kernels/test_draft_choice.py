"""Which draft nodes are verified, against every other choice that there is."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import Parents, parents_of_trees

torch = pytest.importorskip("torch")

from governor_kernels.draft_choice import likeliest_nodes, likeliest_prefixes  # noqa: E402

CHANCES = st.sampled_from([0.0, 0.25, 0.5, 0.5, 1.0])  # ties, and sums that are exact


@st.composite
def drafts(draw: st.DrawFn, max_nodes: int = 9) -> tuple[list[Parents], list[list[float]]]:
    """Trees, and the chance of each node's path; the root's is 1."""
    trees = draw(parents_of_trees(max_nodes))
    worth = []
    for parents in trees:
        row = [1.0]
        for parent in parents[1:]:
            row.append(draw(CHANCES) * row[parent])
        worth.append(row)
    return trees, worth


def is_closed(kept: list[bool], parents: Parents) -> bool:
    return all(
        kept[parent] for parent, one in zip(parents, kept, strict=True) if one and parent >= 0
    )


@given(drafts(), st.data())
def test_caps_and_budget_hold_and_parents_come_first(
    drawn: tuple[list[Parents], list[list[float]]], data: st.DataObject
) -> None:
    trees, worth = drawn
    caps = [data.draw(st.integers(0, 10)) for _ in trees]
    budget = data.draw(st.none() | st.integers(0, 40))
    offered = torch.tensor(worth), torch.tensor(trees), torch.tensor(caps), budget
    found = likeliest_nodes(*offered)
    least = data.draw(CHANCES)
    assert torch.equal(
        likeliest_nodes(*offered, least)[:, 1:], found[:, 1:] & (offered[0] >= least)[:, 1:]
    )
    counts = (found.sum(1) - 1).tolist()
    nodes = len(trees[0]) - 1
    assert all(
        is_closed(row, parents) and row[0]
        for row, parents in zip(found.tolist(), trees, strict=True)
    )
    assert all(count <= cap for count, cap in zip(counts, caps, strict=True))
    allowed = sum(min(cap, nodes) for cap in caps)
    assert sum(counts) == (allowed if budget is None else min(budget, allowed))


@given(drafts(max_nodes=5), st.data())
@settings(max_examples=40)
def test_no_other_choice_is_worth_more(
    drawn: tuple[list[Parents], list[list[float]]], data: st.DataObject
) -> None:
    trees, worth = (side[:2] for side in drawn)
    caps = [data.draw(st.integers(0, 5)) for _ in trees]
    budget = data.draw(st.integers(0, 8))
    pace = [data.draw(st.sampled_from([1.0, 2.0, 4.0])) for _ in trees]
    paid = torch.tensor(worth) / torch.tensor(pace).unsqueeze(1)
    found = likeliest_nodes(paid, torch.tensor(trees), torch.tensor(caps), budget)
    nodes = len(trees[0])
    choices = [
        [
            (sum(kept) - 1, float(paid[row, 1:][list(kept[1:])].sum()))
            for kept in product([False, True], repeat=nodes)
            if kept[0] and is_closed(list(kept), parents) and sum(kept) - 1 <= caps[row]
        ]
        for row, parents in enumerate(trees)
    ]
    best = max(
        sum(gain for _, gain in picked)
        for picked in product(*choices)
        if sum(count for count, _ in picked) <= budget
    )
    assert float(paid[:, 1:][found[:, 1:]].sum()) == best


def test_what_is_not_part_of_the_tree_is_never_verified() -> None:
    """Node 2 has no parent, and node 3 continues it."""
    worth = torch.tensor([[1.0, 0.1, 0.9, 0.8]])
    kept = likeliest_nodes(worth, torch.tensor([[-1, 0, -1, 2]]), torch.tensor([9]), 9)
    assert kept.tolist() == [[True, True, False, False]]


def test_a_chance_that_rises_or_is_no_number_breaks_nothing() -> None:
    worth = torch.tensor([[0.0, 0.2, 0.9, torch.nan], [0.0, 0.5, 0.4, 0.3]])
    parents = torch.tensor([[-1, 0, 1, 2]] * 2)
    kept = likeliest_nodes(worth, parents, torch.tensor([3, 3]), 5)
    assert kept.tolist() == [[True, True, True, False], [True] * 4]
    assert bool(worth[0, 3].isnan()), "the caller's own was changed"


@given(st.data())
def test_of_chains_the_same_nodes_are_found_faster(data: st.DataObject) -> None:
    rows, nodes = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 6))
    chance = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, float("nan")])
    worth = torch.tensor([[data.draw(chance) for _ in range(nodes)] for _ in range(rows)])
    caps = torch.tensor([data.draw(st.integers(0, nodes)) for _ in range(rows)])
    budget = data.draw(st.none() | st.integers(0, rows * nodes))
    least = data.draw(st.sampled_from([0.0, 0.25, 0.5]))
    chains = torch.arange(-1, nodes - 1).expand(rows, nodes)
    wanted = likeliest_nodes(worth, chains, caps, budget, least)
    assert torch.equal(likeliest_prefixes(worth, caps, budget, least), wanted)
