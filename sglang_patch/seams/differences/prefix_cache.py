"""Difference: SGLang's prefix cache."""

from __future__ import annotations

import functools
import importlib.util
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req


class PrefixCache(Protocol):
    """One way in which SGLang has kept prefixes."""

    def is_plain(self, tree: Any) -> bool:
        """Whether ``tree`` keeps one kind of KV, in device memory alone."""

    def keeps_prefixes(self, tree: Any) -> bool:
        """Whether it is a plain one, and in use: of other caches nothing is known."""

    def found(self, tree: Any, req: Req, tokens: Any, limit: int) -> int:
        """How many of the first ``limit`` of ``tokens`` a tree that keeps prefixes holds. Nothing
        in it is changed, and no time of use is renewed."""

    def key(self, req: Req, tokens: Any) -> Any:
        """What a tree that keeps prefixes looks up to find ``tokens`` of a request."""


class SeparateCaches:
    """Up to 0.5.17: a class for each kind of cache."""

    def is_plain(self, tree: Any) -> bool:
        from sglang.srt.mem_cache.chunk_cache import ChunkCache
        from sglang.srt.mem_cache.radix_cache import RadixCache

        return type(tree) in (RadixCache, ChunkCache)

    def keeps_prefixes(self, tree: Any) -> bool:
        from sglang.srt.mem_cache.radix_cache import RadixCache

        return type(tree) is RadixCache and not tree.disable

    def found(self, tree: Any, req: Req, tokens: Any, limit: int) -> int:
        from sglang.srt.mem_cache.radix_cache import RadixKey

        page_size: int = tree.page_size
        key = RadixKey(tokens, req.extra_key, limit=limit)
        key, _ = key.maybe_to_bigram_view(tree.is_eagle)
        key = key.page_aligned(page_size)
        node, found = tree.root_node, 0
        while len(key) > 0:
            # NOTE: not by index: the dict of children makes up what it does not have.
            child = node.children.get(key.child_key(page_size))
            if child is None:
                break
            shared = child.key.match(key, page_size=page_size)
            found += shared
            if shared < len(child.key):
                break
            node, key = child, key[shared:]
        return found

    def key(self, req: Req, tokens: Any) -> Any:
        from sglang.srt.mem_cache.radix_cache import RadixKey

        return RadixKey(tokens, req.extra_key)


class UnifiedCache:
    """In 0.5.23: one class, made up of components; also where nothing is kept."""

    def is_plain(self, tree: Any) -> bool:
        from sglang.srt.mem_cache.unified_cache.component_type import ComponentType
        from sglang.srt.mem_cache.unified_radix_cache import UnifiedRadixCache

        return (
            type(tree) is UnifiedRadixCache
            and tuple(tree.components) == (ComponentType.FULL,)
            and tree.cache_controller is None
            and tree.linker is None
        )

    def keeps_prefixes(self, tree: Any) -> bool:
        return self.is_plain(tree) and not tree.disable

    def found(self, tree: Any, req: Req, tokens: Any, limit: int) -> int:
        from sglang.srt.mem_cache.radix_cache import RadixKey

        key = RadixKey(tokens, req.extra_key, limit=limit, cache_salt=req.cache_salt)
        found, _node, _pinned = tree.tree_core.match_full_device_prefix(key)
        return int(found)

    def key(self, req: Req, tokens: Any) -> Any:
        from sglang.srt.mem_cache.radix_cache import RadixKey

        return RadixKey(tokens, req.extra_key, cache_salt=req.cache_salt)


@functools.cache
def prefix_cache() -> PrefixCache:
    """The way of this SGLang. 0.5.17 has the unified cache, too, and seldom uses it."""
    separate = importlib.util.find_spec("sglang.srt.mem_cache.chunk_cache") is not None
    return SeparateCaches() if separate else UnifiedCache()
