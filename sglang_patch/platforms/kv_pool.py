"""SGLang's KV pool for multi-head attention, moving KV without a kernel.

SGLang 0.5.23 warms its kernel up as soon as an engine speculates; up to 0.5.17 it does not where
the platform names the pool.
"""

from __future__ import annotations

from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool


class KvPool(MHATokenToKVPool):  # type: ignore[misc]
    """Moves KV by torch's indexing."""

    def _init_kv_copy_and_warmup(self) -> None:
        self._kv_copy_config = None
        self.use_native_move_kv_cache = True
