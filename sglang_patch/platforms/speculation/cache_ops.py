"""References of the KV bookkeeping of speculation, with SGLang's signatures.

Results that SGLang passes a buffer for are written into it. Parameters that only a device needs
are there because the signature is checked, and not used.
"""

from __future__ import annotations

from typing import Any

from governor_kernels import accepted_path
from governor_kernels.row_slots import gather_row_slots, scatter_row_slots


def assign_extend_cache_locs_func(
    req_pool_indices: Any,
    req_to_token: Any,
    start_offset: Any,
    end_offset: Any,
    batch_size: int,
    draft_token_num: int,
    device: Any,
) -> Any:
    """Slots that a verification writes: `draft_token_num` a row. Stock SGLang returns None."""
    return gather_row_slots(req_to_token, req_pool_indices, start_offset, end_offset)


def assign_extend_cache_locs(
    req_pool_indices: Any,
    req_to_token: Any,
    start_offset: Any,
    end_offset: Any,
    out_cache_loc: Any,
    pool_len: int,
    bs_upper: int,
) -> None:
    """The same for rows of different lengths, into the front of `out_cache_loc`."""
    slots = gather_row_slots(req_to_token, req_pool_indices, start_offset, end_offset)
    out_cache_loc[: len(slots)] = slots


def assign_draft_cache_locs_contiguous(
    req_pool_indices: Any,
    req_to_token: Any,
    seq_lens: Any,
    out_cache_loc: Any,
    pool_len: int,
    topk: int,
    speculative_num_steps: int,
) -> None:
    """Slots that drafting writes: `topk * speculative_num_steps` a row."""
    ends = seq_lens + topk * speculative_num_steps
    out_cache_loc.copy_(gather_row_slots(req_to_token, req_pool_indices, seq_lens, ends))


def assign_req_to_token_pool_func(
    req_pool_indices: Any,
    req_to_token: Any,
    start_offset: Any,
    end_offset: Any,
    out_cache_loc: Any,
    batch_size: int,
) -> None:
    """Enter newly allocated slots in the table of slots."""
    scatter_row_slots(req_to_token, req_pool_indices, start_offset, end_offset, out_cache_loc)


def fill_accept_out_cache_loc_func(
    accept_index: Any, out_cache_loc: Any, accept_out_cache_loc: Any, size: int
) -> None:
    """Slots of the accepted nodes, into the front of `accept_out_cache_loc`."""
    slots = accepted_path.accepted_slots(accept_index, out_cache_loc)
    accept_out_cache_loc[: len(slots)] = slots


def fill_bonus_tokens_func(
    accept_tokens: Any, accept_lens: Any, bonus_tokens: Any, accept_stride: int, batch_size: int
) -> None:
    """Last token of each row's step."""
    tokens = accept_tokens.view(batch_size, accept_stride)
    bonus_tokens.copy_(accepted_path.bonus_tokens(tokens, accept_lens))
