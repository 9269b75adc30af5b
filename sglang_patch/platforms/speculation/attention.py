"""Attention for speculation: SGLang's `torch_native` backend with trees and draft steps.

The stock backend computes prefill and plain decoding. Here are the three passes that only
speculation has: verifying a tree (each node sees the prefix and its ancestors), extending the
draft's KV after a verification, and drafting, where each branch of the beam sees its own tokens.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from governor_kernels.slot_attention import attend_slots
from governor_kernels.tree_mask import split_full_mask
from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend
from sglang.srt.mem_cache.memory_pool import KVWriteLoc

from sglang_patch.platforms.speculation.kept_nodes import kept_nodes


class _Reach(NamedTuple):
    """What a stretch of consecutive query tokens sees: one row of verification, one branch."""

    tokens: int
    slots: Any
    """(context,) int64."""
    mask: Any
    """(tokens, context) bool, or None where every token sees every slot."""


class SpeculationAttention(TorchNativeAttnBackend):  # type: ignore[misc]
    """`torch_native` with tree verification and draft extension."""

    verifies_kept_nodes = True
    """A verification may compute some nodes of a row only; see :mod:`.kept_nodes`."""

    _reaches: list[_Reach] | None = None
    """For the pass at hand; None where the stock backend computes it."""

    def init_forward_metadata(self, forward_batch: Any) -> None:
        """Look the slots and masks of a pass up, once for all layers."""
        super().init_forward_metadata(forward_batch)
        self._reaches = self._plan(forward_batch)

    def _plan(self, forward_batch: Any) -> list[_Reach] | None:
        mode = forward_batch.forward_mode
        if mode.is_target_verify():
            return self._plan_verification(forward_batch)
        if mode.is_draft_extend_v2():
            return self._plan_extension(forward_batch)
        return None

    def _plan_verification(self, forward_batch: Any) -> list[_Reach]:
        """`seq_lens` counts what lies before the root; a row's nodes follow it in its slots."""
        prefix_lens = forward_batch.seq_lens.tolist()
        nodes = [forward_batch.spec_info.draft_token_num] * len(prefix_lens)
        masks = split_full_mask(forward_batch.spec_info.custom_mask, prefix_lens, nodes)
        ends = [prefix + count for prefix, count in zip(prefix_lens, nodes, strict=True)]
        rows = zip(nodes, self._slots(forward_batch, ends), masks, strict=True)
        reaches = [_Reach(*row) for row in rows]
        kept = kept_nodes(forward_batch.spec_info)
        if kept is None:
            return reaches
        if not bool((kept[:, 1:] > kept[:, :-1]).any()):  # as of chains, and where all are kept
            counts = kept.sum(dim=1).tolist()
            return [_of_first(*pair) for pair in zip(reaches, counts, strict=True)]
        return [_of_nodes(*pair) for pair in zip(reaches, kept, strict=True)]

    def _plan_extension(self, forward_batch: Any) -> list[_Reach]:
        """`seq_lens` counts the new tokens in; each sees the prefix and those before it."""
        counts = forward_batch.extend_seq_lens.tolist()
        prefix_lens = forward_batch.extend_prefix_lens.tolist()
        ends = [prefix + count for prefix, count in zip(prefix_lens, counts, strict=True)]
        masks = [
            torch.ones((count, end), dtype=torch.bool).tril_(end - count)
            for count, end in zip(counts, ends, strict=True)
        ]
        rows = zip(counts, self._slots(forward_batch, ends), masks, strict=True)
        return [_Reach(*row) for row in rows]

    def _slots(self, forward_batch: Any, ends: list[int]) -> list[Any]:
        """Slots of the first `ends` tokens of each row."""
        table = self.req_to_token_pool.req_to_token
        owners = forward_batch.req_pool_indices.tolist()
        return [table[row, :end].long() for row, end in zip(owners, ends, strict=True)]

    def forward_extend(
        self, q: Any, k: Any, v: Any, layer: Any, forward_batch: Any, save_kv_cache: bool = True
    ) -> Any:
        """One layer of prefill, of verification or of draft extension."""
        if self._reaches is None:
            return super().forward_extend(q, k, v, layer, forward_batch, save_kv_cache)
        return self._forward(q, k, v, layer, forward_batch, save_kv_cache)

    def forward_decode(
        self, q: Any, k: Any, v: Any, layer: Any, forward_batch: Any, save_kv_cache: bool = True
    ) -> Any:
        """One layer of plain decoding or of a draft step."""
        if self._reaches is None:
            return super().forward_decode(q, k, v, layer, forward_batch, save_kv_cache)
        return self._forward(q, k, v, layer, forward_batch, save_kv_cache)

    def _forward(
        self, q: Any, k: Any, v: Any, layer: Any, forward_batch: Any, save_kv_cache: bool
    ) -> Any:
        """Returns (tokens, query heads * value size)."""
        _require_plain(layer)
        if save_kv_cache and k is not None and v is not None:
            where = KVWriteLoc(forward_batch.out_cache_loc, self.swa_out_cache_loc)
            self.token_to_kv_pool.set_kv_buffer(layer, where, k, v)
        queries = q.reshape(-1, layer.tp_q_head_num, layer.qk_head_dim)
        keys = self.token_to_kv_pool.get_key_buffer(layer.layer_id)
        values = self.token_to_kv_pool.get_value_buffer(layer.layer_id)
        reaches = self._reaches or []
        parts = torch.split(queries, [reach.tokens for reach in reaches])
        attended = [
            attend_slots(part, keys, values, reach.slots, reach.mask, layer.scaling)
            for part, reach in zip(parts, reaches, strict=True)
        ]
        return torch.cat(attended).reshape(-1, layer.tp_q_head_num * layer.v_head_dim)


def _of_first(reach: _Reach, count: int) -> _Reach:
    """A row's verification, of its first nodes."""
    end = len(reach.slots) - reach.tokens + count
    return _Reach(count, reach.slots[:end], reach.mask[:count, :end])


def _of_nodes(reach: _Reach, kept: Any) -> _Reach:
    """A row's verification, of the kept nodes of its tree: they see the prefix and one another."""
    nodes = kept.nonzero().flatten()
    prefix = len(reach.slots) - len(kept)
    seen = torch.cat((torch.arange(prefix), prefix + nodes))
    return _Reach(len(nodes), reach.slots[seen], reach.mask[nodes][:, seen])


class DraftStepAttention(SpeculationAttention):
    """Attention of one step of drafting: each branch of the beam sees the prefix and itself.

    A branch's tokens have slots of their own after the row's: `steps` of them, the first branch's
    first.
    """

    def __init__(self, model_runner: Any, step: int, topk: int, steps: int) -> None:
        super().__init__(model_runner)
        self._step, self._topk, self._steps = step, topk, steps

    def _plan(self, forward_batch: Any) -> list[_Reach]:
        reaches = []
        lens = forward_batch.seq_lens.tolist()
        ends = [length + self._topk * self._steps for length in lens]
        for length, slots in zip(lens, self._slots(forward_batch, ends), strict=True):
            branches = slots[length:].view(self._topk, self._steps)[:, : self._step + 1]
            reaches += [_Reach(1, torch.cat((slots[:length], own)), None) for own in branches]
        return reaches


class DraftAttention:
    """What drafting asks for in place of one backend: one for each step but the last."""

    needs_cpu_seq_lens = True

    def __init__(self, model_runner: Any, topk: int, steps: int) -> None:
        self.attn_backends = [
            DraftStepAttention(model_runner, step, topk, steps) for step in range(steps - 1)
        ]

    def init_forward_metadata(self, forward_batch: Any) -> None:
        """Prepare all steps; the batch carries the lengths from before the first."""
        for backend in self.attn_backends:
            backend.init_forward_metadata(forward_batch)


def _require_plain(layer: Any) -> None:
    window = getattr(layer, "sliding_window_size", None)
    if layer.is_cross_attention or (window is not None and window > -1):
        raise NotImplementedError(
            f"layer {layer.layer_id} has cross attention or a sliding window: the reference CPU "
            "platform speculates only with full self-attention; leave out --speculative-algorithm"
        )


def create_attention(runner: Any) -> SpeculationAttention:
    """Backend of the target, and of the draft model outside of drafting."""
    return SpeculationAttention(runner)


def create_decode_backend(self: Any) -> DraftAttention | None:
    """Method of SGLang's `DraftBackendFactory`: backends of drafting, None if no step needs one."""
    if self.speculative_num_steps <= 1:
        return None
    return DraftAttention(self.draft_model_runner, self.topk, self.speculative_num_steps)


def create_draft_extend_backend(self: Any) -> SpeculationAttention:
    """Method of SGLang's `DraftBackendFactory`: backend of draft extension."""
    return SpeculationAttention(self.draft_model_runner)
