"""A verification that computes some nodes of each row, and a different number from row to row."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

from sglang_patch.platforms.speculation.kept_nodes import KEPT_NODES, takes_kept_nodes

TAKEN = ("input_ids", "positions", "out_cache_loc", "mrope_positions")
"""What a verification takes for each node, along the last axis."""
GIVEN = ("next_token_logits", "hidden_states")
"""What it gives for each node, along the first."""


def can_verify_some(runner: Any) -> bool:
    """Whether SGLang's target ``ModelRunner`` can: its attention must, and adapters (LoRA) are
    laid out for all nodes."""
    return takes_kept_nodes(runner.attn_backend) and not runner.server_args.enable_lora


@contextlib.contextmanager
def only(runner: Any, kept: Any) -> Iterator[None]:
    """Have SGLang's target ``ModelRunner`` verify no nodes but these.

    The others are not computed, and no KV is written for them. In what the runner returns they are
    there and hold zeros, so that all that SGLang does with it finds the shape that it knows. No
    link may lead to them.

    Args:
        kept: (rows, nodes) bool; each row's root among them, and with every node its parent.
    """
    forward = runner.forward

    def forward_some(forward_batch: Any, *args: Any, **kwargs: Any) -> Any:
        if not forward_batch.forward_mode.is_target_verify():
            return forward(forward_batch, *args, **kwargs)
        output = forward(narrowed(forward_batch, kept), *args, **kwargs)
        widen(output.logits_output, kept)
        return output

    runner.forward = forward_some
    try:
        yield
    finally:
        runner.forward = forward


def narrowed(forward_batch: Any, kept: Any) -> Any:
    """A ``ForwardBatch`` of the kept nodes alone; SGLang's own stays as it is."""
    flat = kept.flatten()
    batch = copy.copy(forward_batch)
    for name in TAKEN:
        every = getattr(forward_batch, name)
        if every is not None:
            setattr(batch, name, every[..., flat])
    batch.num_token_non_padded_cpu = int(flat.sum())
    if forward_batch.num_token_non_padded is not None:
        count = batch.num_token_non_padded_cpu
        batch.num_token_non_padded = forward_batch.num_token_non_padded.new_tensor(count)
    batch.spec_info = copy.copy(forward_batch.spec_info)
    setattr(batch.spec_info, KEPT_NODES, kept)
    return batch


def widen(output: Any, kept: Any) -> None:
    """Give the nodes that were not computed zeros, in place."""
    flat = kept.flatten()
    for name in GIVEN:
        some = getattr(output, name)
        if some is not None:
            full = some.new_zeros((len(flat), *some.shape[1:]))
            full[flat] = some
            setattr(output, name, full)
