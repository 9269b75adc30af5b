"""SGLang's allocator for KV pages of one token, with the constructor of a paged one.

SGLang builds the KV allocator of an out-of-tree platform with `page_size`, which its allocator for
pages of one token does not take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from sglang.srt.mem_cache.allocator.token import TokenToKVPoolAllocator

if TYPE_CHECKING:
    from sglang.srt.mem_cache.memory_pool import KVCache


class TokenAllocator(TokenToKVPoolAllocator):  # type: ignore[misc]
    """KV slots of one token each."""

    def __init__(
        self,
        size: int,
        *,
        page_size: int,
        dtype: torch.dtype,
        device: str,
        kvcache: KVCache,
        need_sort: bool,
    ) -> None:
        """Manage `size` token slots of `kvcache`.

        Raises:
            ValueError: `page_size` is not 1; paged allocation needs kernels.
        """
        if page_size != 1:
            raise ValueError(
                f"The reference CPU platform keeps KV in pages of 1 token, not {page_size}: "
                "leave --page-size out."
            )
        super().__init__(size, dtype, device, kvcache, need_sort)
