"""Everything of SGLang's that is replaced for speculation on a CPU."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from sglang.srt.layers.attention.attention_registry import ATTENTION_BACKENDS
from sglang.srt.speculative import eagle_utils, spec_utils

from sglang_patch.platforms.speculation import attention, cache_ops, sampling_ops, tree_ops
from sglang_patch.platforms.speculation.kernel_package import reference_kernels
from sglang_patch.platforms.speculation.replacing import Replacement, replace_all
from sglang_patch.platforms.speculation.requirements import ATTENTION_BACKEND


def _with_reference_kernels(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that finds the references where it imports compiled kernels."""

    @functools.wraps(function)
    def with_reference_kernels(*args: Any, **kwargs: Any) -> Any:
        with reference_kernels():
            return function(*args, **kwargs)

    return with_reference_kernels


def _uncompiled(function: Any) -> Callable[..., Any]:
    """What `torch.compile` was given: compiling for this CPU takes longer than it ever saves."""
    plain: Callable[..., Any] = getattr(function, "_torchdynamo_orig_callable", function)
    return plain


_OPS = "sglang.kernels.ops.speculative."
_SPECULATIVE = "sglang.srt.speculative."
_FACTORY = _SPECULATIVE + "draft_utils.DraftBackendFactory."

REPLACEMENTS = (
    Replacement(
        _OPS + "cache_locs.assign_extend_cache_locs_func", cache_ops.assign_extend_cache_locs_func
    ),
    Replacement(
        _OPS + "cache_locs.assign_extend_cache_locs",
        cache_ops.assign_extend_cache_locs,
        is_kernel=True,
    ),
    Replacement(
        _OPS + "cache_locs.assign_draft_cache_locs_contiguous",
        cache_ops.assign_draft_cache_locs_contiguous,
        is_kernel=True,
    ),
    Replacement(
        _OPS + "eagle.fill_accept_out_cache_loc_func", cache_ops.fill_accept_out_cache_loc_func
    ),
    Replacement(_OPS + "eagle.fill_bonus_tokens_func", cache_ops.fill_bonus_tokens_func),
    Replacement(
        _OPS + "reject_sampling.chain_speculative_sampling_triton",
        sampling_ops.chain_speculative_sampling_triton,
    ),
    Replacement(
        "sglang.srt.mem_cache.allocation.assign_req_to_token_pool_func",
        cache_ops.assign_req_to_token_pool_func,
    ),
    Replacement(
        _SPECULATIVE + "eagle_utils.build_tree_kernel_efficient",
        tree_ops.build_tree_kernel_efficient,
    ),
    Replacement(
        _SPECULATIVE + "eagle_utils.verify_tree_greedy_func", tree_ops.verify_tree_greedy_func
    ),
    Replacement(
        _SPECULATIVE + "eagle_utils.eagle_sample",
        _with_reference_kernels(eagle_utils.eagle_sample),
    ),
    Replacement(
        _SPECULATIVE + "spec_utils._select_top_k_tokens_later",
        _uncompiled(spec_utils._select_top_k_tokens_later),
    ),
    Replacement(_FACTORY + "create_decode_backend", attention.create_decode_backend),
    Replacement(_FACTORY + "create_draft_extend_backend", attention.create_draft_extend_backend),
)


def put_in_place() -> None:
    """Replace what is not replaced yet, and register the attention backend under its stock name.

    Raises:
        RuntimeError: this SGLang is not a version that the platform knows.
    """
    replace_all(REPLACEMENTS)
    ATTENTION_BACKENDS[ATTENTION_BACKEND] = attention.create_attention
