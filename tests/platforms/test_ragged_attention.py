"""Attention of a verification that computes some nodes of each row: as if it had computed all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("sglang")

from governor_kernels.tree_mask import flatten_full_mask  # noqa: E402

from sglang_patch.seams.speculation.ragged import narrowed  # noqa: E402

HEADS, SIZE, CONTEXT = 2, 4, 24
LAYER = SimpleNamespace(
    is_cross_attention=False,
    sliding_window_size=None,
    tp_q_head_num=HEADS,
    qk_head_dim=SIZE,
    v_head_dim=SIZE,
    layer_id=0,
    scaling=0.5,
)


class Pool:
    """KV of one layer."""

    def __init__(self, slots: int) -> None:
        self.keys = torch.full((slots, HEADS, SIZE), torch.nan)
        self.values = self.keys.clone()

    def set_kv_buffer(self, layer: Any, where: Any, keys: Any, values: Any) -> None:
        self.keys[where.loc], self.values[where.loc] = keys, values

    def get_key_buffer(self, layer_id: int) -> Any:
        return self.keys

    def get_value_buffer(self, layer_id: int) -> Any:
        return self.values


@st.composite
def verifications(draw: st.DrawFn) -> tuple[list[int], list[list[int]], list[list[bool]]]:
    """Prefixes, trees as parents, and some nodes of each: a root and paths from it."""
    nodes, rows = draw(st.integers(1, 7)), draw(st.integers(1, 3))
    prefixes = [draw(st.integers(1, 6)) for _ in range(rows)]
    trees, kept = [], []
    for _ in range(rows):
        tree = [-1, *(draw(st.integers(0, node - 1)) for node in range(1, nodes))]
        some = [True]
        for parent in tree[1:]:
            some.append(some[parent] and draw(st.booleans()))
        trees.append(tree)
        kept.append(some)
    return prefixes, trees, kept


def visible(tree: list[int]) -> list[list[bool]]:
    seen: list[list[bool]] = []
    for node, parent in enumerate(tree):
        row = list(seen[parent]) if parent >= 0 else [False] * len(tree)
        row[node] = True
        seen.append(row)
    return seen


@given(verifications(), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_some_nodes_attend_as_they_would_among_all(
    drawn: tuple[list[int], list[list[int]], list[list[bool]]], seed: int
) -> None:
    from sglang_patch.platforms.speculation.attention import SpeculationAttention

    prefixes, trees, chosen = drawn
    rows, nodes = len(trees), len(trees[0])
    torch.manual_seed(seed)
    table = torch.randperm(rows * CONTEXT).view(rows, CONTEXT)
    owners = torch.arange(rows)
    slots = torch.cat([table[row, at : at + nodes] for row, at in enumerate(prefixes)])
    batch = SimpleNamespace(
        forward_mode=SimpleNamespace(is_target_verify=lambda: True),
        seq_lens=torch.tensor(prefixes),
        req_pool_indices=owners,
        input_ids=torch.arange(rows * nodes),
        positions=torch.arange(rows * nodes),
        out_cache_loc=slots,
        mrope_positions=None,
        num_token_non_padded=None,
        spec_info=SimpleNamespace(
            draft_token_num=nodes,
            custom_mask=flatten_full_mask(
                torch.tensor([visible(tree) for tree in trees]), prefixes
            ),
        ),
    )
    kept = torch.tensor(chosen)
    query, key, value = torch.randn(3, rows * nodes, HEADS, SIZE)
    before = torch.randn(2, rows * CONTEXT, HEADS, SIZE)

    def attend(forward_batch: Any, which: Any) -> tuple[Any, Pool]:
        pool = Pool(rows * CONTEXT)
        for row, prefix in enumerate(prefixes):
            own = table[row, :prefix]
            pool.keys[own], pool.values[own] = before[0][own], before[1][own]
        backend = SpeculationAttention(
            SimpleNamespace(
                device="cpu",
                req_to_token_pool=SimpleNamespace(req_to_token=table),
                token_to_kv_pool=pool,
            )
        )
        backend.init_forward_metadata(forward_batch)
        return backend.forward_extend(
            query[which], key[which], value[which], LAYER, forward_batch
        ), pool

    every = torch.ones(rows * nodes, dtype=torch.bool)
    full, _ = attend(batch, every)
    some, pool = attend(narrowed(batch, kept), kept.flatten())
    torch.testing.assert_close(some, full[kept.flatten()])
    assert bool(pool.keys[slots[~kept.flatten()]].isnan().all()), "KV was written for the others"
