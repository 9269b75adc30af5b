"""Attention over scattered slots, against the definition; and the masks that it is given."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import Parents, mask_of, parents_of_trees

torch = pytest.importorskip("torch")

from governor_kernels.slot_attention import attend_slots  # noqa: E402
from governor_kernels.tree_mask import flatten_full_mask, split_full_mask  # noqa: E402


@given(st.integers(0, 2**32 - 1), st.sampled_from([(2, 2), (4, 2), (4, 1)]), st.booleans())
@settings(max_examples=30)
def test_attention_is_a_softmax_over_what_is_seen(
    seed: int, heads: tuple[int, int], masked: bool
) -> None:
    torch.manual_seed(seed)
    tokens, context, size, value_size = 3, 7, 8, 6
    query = torch.randn(tokens, heads[0], size)
    keys, values = torch.randn(20, heads[1], size), torch.randn(20, heads[1], value_size)
    slots = torch.randperm(20)[:context]
    mask = torch.rand(tokens, context) < 0.5
    mask[:, 0] = True
    found = attend_slots(query, keys, values, slots, mask if masked else None, 0.3)
    assert found.shape == (tokens, heads[0], value_size)
    group = heads[0] // heads[1]
    for token in range(tokens):
        seen = [at for at in range(context) if not masked or mask[token, at]]
        for head in range(heads[0]):
            pairs = [(slots[at], head // group) for at in seen]
            scores = [float(query[token, head] @ keys[pair]) * 0.3 for pair in pairs]
            weights = [math.exp(score - max(scores)) for score in scores]
            wanted = sum(w * values[pair] for w, pair in zip(weights, pairs, strict=True))
            torch.testing.assert_close(
                found[token, head], wanted / sum(weights), atol=1e-5, rtol=1e-4
            )


@given(parents_of_trees(), st.data())
def test_masks_see_the_prefix_and_the_tree(trees: list[Parents], data: st.DataObject) -> None:
    nodes = len(trees[0])
    prefix_lens = data.draw(st.lists(st.integers(0, 5), min_size=len(trees), max_size=len(trees)))
    visible = torch.tensor(mask_of(trees))
    flat = flatten_full_mask(visible, prefix_lens)
    padded = torch.cat((flat, torch.zeros(3, dtype=torch.bool)))
    parts = split_full_mask(padded, prefix_lens, [nodes] * len(trees))
    assert len(parts) == len(trees)
    for part, prefix, tree in zip(parts, prefix_lens, visible, strict=True):
        assert part[:, :prefix].all()
        assert torch.equal(part[:, prefix:], tree)


def test_trees_of_different_sizes_split() -> None:
    parts = split_full_mask(torch.arange(1 * 3 + 2 * 3) % 2 == 0, [2, 1], [1, 2])
    assert [tuple(part.shape) for part in parts] == [(1, 3), (2, 3)]


def test_a_mask_of_trees_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="without their prefix"):
        split_full_mask(torch.ones(4, dtype=torch.bool), [3], [2])
