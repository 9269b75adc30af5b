"""References of SGLang's two kernels for KV pages, with their signatures.

SGLang up to 0.5.17 allocates pages of several tokens by Triton kernels alone. From 0.5.23 on it
does without them by itself where a platform has no Triton.
"""

from __future__ import annotations

from typing import Any

from governor_kernels.page_slots import extended_slots

from sglang_patch.platforms.speculation.replacing import Replacement, replace_all


def alloc_extend_kernel(
    pre_lens_ptr: Any,
    seq_lens_ptr: Any,
    last_loc_ptr: Any,
    free_page_ptr: Any,
    out_indices: Any,
    bs_upper: int,
    page_size: int,
) -> None:
    """Slots of prompt tokens."""
    out_indices.copy_(
        extended_slots(pre_lens_ptr, seq_lens_ptr, last_loc_ptr, free_page_ptr, page_size)
    )


def alloc_decode_kernel(
    seq_lens_ptr: Any,
    last_loc_ptr: Any,
    free_page_ptr: Any,
    out_indices: Any,
    bs_upper: int,
    page_size: int,
) -> None:
    """Slots of one more token for each row."""
    out_indices.copy_(
        extended_slots(seq_lens_ptr - 1, seq_lens_ptr, last_loc_ptr, free_page_ptr, page_size)
    )


def allocate_pages_without_kernels() -> None:
    """Have SGLang's allocator of pages use the references.

    Raises:
        RuntimeError: this SGLang is not a version that the platform knows.
    """
    from sglang.srt.mem_cache.allocator import paged

    if hasattr(paged, "alloc_decode_naive"):
        return
    replace_all(
        Replacement(
            f"sglang.kernels.ops.memory.allocator.{kernel.__name__}",
            kernel,
            is_kernel=True,
            remedy="Leave out --page-size.",
        )
        for kernel in (alloc_extend_kernel, alloc_decode_kernel)
    )
