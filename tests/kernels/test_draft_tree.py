"""Draft trees out of a beam, against a beam that keeps whole paths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import path_to

torch = pytest.importorskip("torch")

from governor_kernels.draft_tree import build_draft_tree  # noqa: E402


class Beam:
    """A beam search that remembers of each drafted token which one it continues."""

    def __init__(self, draw: st.DrawFn, topk: int, steps: int) -> None:
        self.parent_of = [-1] * topk  # by number of the drafted token; -1: the root
        self.groups = [-1]  # as SGLang lists them: the root, then the tokens continued
        alive = list(range(topk))
        for _ in range(steps - 1):
            self.groups += alive
            start = len(self.parent_of)
            self.parent_of += [token for token in alive for _ in range(topk)]
            drafted = st.sampled_from(range(start, len(self.parent_of)))
            alive = draw(st.lists(drafted, min_size=topk, max_size=topk, unique=True))


@st.composite
def beams(draw: st.DrawFn) -> tuple[int, list[Beam], list[list[int]]]:
    """A width, a beam a row, and the tokens selected of each, with their ancestors."""
    topk, steps = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    rows = [Beam(draw, topk, steps) for _ in range(draw(st.integers(1, 3)))]
    wanted = draw(st.integers(1, min(len(beam.parent_of) for beam in rows)))
    selections = []
    for beam in rows:
        selected: list[int] = []
        while len(selected) < wanted:
            ready = [
                token
                for token, parent in enumerate(beam.parent_of)
                if token not in selected and (parent < 0 or parent in selected)
            ]
            selected.append(draw(st.sampled_from(ready)))
        selections.append(sorted(selected))
    return topk, rows, selections


@given(beams())
def test_a_tree_is_the_beam_cut_to_the_selected_tokens(
    drawn: tuple[int, list[Beam], list[list[int]]],
) -> None:
    topk, rows, selections = drawn
    # The last step's tokens are continued by none: SGLang leaves their group out.
    width = 0 if len(rows[0].groups) == 1 else len(rows[0].groups)
    parent_list = torch.tensor([beam.groups[:width] for beam in rows]).view(len(rows), width)
    tree = build_draft_tree(parent_list.long(), torch.tensor(selections), topk)
    for row, (beam, selected) in enumerate(zip(rows, selections, strict=True)):
        number = {token: at + 1 for at, token in enumerate(selected)} | {-1: 0}
        parents = [-1] + [number[beam.parent_of[token]] for token in selected]
        for node in range(len(parents)):
            path = path_to(parents, node)
            assert tree.depths[row, node] == len(path) - 1
            assert tree.visible[row, node].nonzero().flatten().tolist() == sorted(path)
            children = [other for other in range(len(parents)) if parents[other] == node]
            assert tree.links.first_child[row, node] == (children[0] if children else -1)
            siblings = [
                other for other in range(node + 1, len(parents)) if parents[other] == parents[node]
            ]
            assert tree.links.next_sibling[row, node] == (siblings[0] if siblings else -1)


def test_a_token_without_its_parent_cannot_be_reached() -> None:
    """Token 2 continues token 0, which was not selected, and token 4 continues token 1."""
    tree = build_draft_tree(torch.tensor([[-1, 0, 1]]), torch.tensor([[1, 2, 4]]), 2)
    assert tree.links.first_child.tolist() == [[1, 3, -1, -1]]
    assert tree.links.next_sibling.tolist() == [[-1, -1, -1, -1]]
    assert tree.visible[0, 2].tolist() == [True, False, True, False]
    assert tree.depths.tolist() == [[0, 1, 1, 2]]
