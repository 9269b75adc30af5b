"""SGLang's allocator for KV pages of one token, with the constructor of a paged one.

SGLang up to 0.5.17 builds the KV allocator of an out-of-tree platform with `page_size`, which its
allocator for pages of one token does not take. And that allocator copies its whole free list
whenever something is freed, which a GPU does not notice but a CPU does: 6 ms for 3.5 million slots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from sglang.srt.mem_cache.allocator.token import TokenToKVPoolAllocator

if TYPE_CHECKING:
    from sglang.srt.mem_cache.memory_pool import KVCache


JOIN_TOKENS = 65_536
"""Freed slots are kept aside until there are this many, or until they are needed."""


class TokenAllocator(TokenToKVPoolAllocator):  # type: ignore[misc]
    """KV slots of one token each."""

    free_pages: torch.Tensor
    release_pages: torch.Tensor

    def __init__(
        self,
        size: int,
        *,
        page_size: int = 1,
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
        # What SGLang calls sorting is to set freed slots aside and to join them later.
        super().__init__(size, dtype, device, kvcache, need_sort=True)
        self._sorts = need_sort

    def free(self, free_index: torch.Tensor) -> None:
        """Take back slots; ``free_index`` has shape (slots,)."""
        super().free(free_index)
        if len(self.release_pages) >= JOIN_TOKENS:
            self.merge_and_sort_free()

    def merge_and_sort_free(self) -> None:
        """Make the freed slots available, sorted only if SGLang asked for sorted slots."""
        if self._sorts:
            super().merge_and_sort_free()
        elif len(self.release_pages) > 0:
            self.free_pages = torch.cat((self.free_pages, self.release_pages))
            self.release_pages = self.release_pages.new_empty((0,))
