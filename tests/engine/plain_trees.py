"""SGLang's own prefix cache without memory pools, in the class that this version serves with."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sglang_patch.seams.differences.prefix_cache import SeparateCaches, prefix_cache

torch = pytest.importorskip("torch")
radix_cache = pytest.importorskip("sglang.srt.mem_cache.radix_cache")


def plain_tree(page_size: int = 1, *, bigrams: bool = False) -> Any:
    """An empty tree; its keys are pairs of tokens with ``bigrams``, as with EAGLE."""
    if isinstance(prefix_cache(), SeparateCaches):
        tree = radix_cache.RadixCache.create_simulated(page_size=page_size)
        tree.is_eagle = bigrams
        return tree
    from sglang.srt.mem_cache.cache_init_params import CacheInitParams
    from sglang.srt.mem_cache.unified_cache.component_type import ComponentType
    from sglang.srt.mem_cache.unified_radix_cache import UnifiedRadixCache

    pool = SimpleNamespace(device="cpu", page_size=page_size, free_segment=lambda *_, **__: None)
    return UnifiedRadixCache(
        CacheInitParams(
            disable=False,
            req_to_token_pool=None,
            token_to_kv_pool_allocator=pool,
            page_size=page_size,
            is_eagle=bigrams,
            tree_components=(ComponentType.FULL,),
            tree_core_backend="python",  # its nodes can be looked at
        )
    )


def insert(tree: Any, ids: Any) -> None:
    """Keep the KV of ``ids``."""
    tokens = array("q", ids)
    tree.insert(
        radix_cache.InsertParams(key=radix_cache.RadixKey(tokens), value=torch.arange(len(tokens)))
    )


def found_by_sglang(tree: Any, ids: Any, limit: int) -> int:
    """What SGLang's own lookup finds of the first ``limit`` of ``ids``; it changes the tree."""
    key = radix_cache.RadixKey(array("q", ids), limit=limit)
    match = tree.match_prefix(radix_cache.MatchPrefixParams(key=key))
    if hasattr(match, "device_prefix_len"):
        return int(match.device_prefix_len)
    return len(match.device_indices)


def nodes(tree: Any) -> list[Any]:
    """All that a lookup could change of the tree."""
    return list(_nodes(getattr(tree, "tree_core", tree).root_node))


def _nodes(node: Any) -> Iterator[Any]:
    locks = getattr(node, "lock_ref", None)
    yield (id(node), id(node.parent), node.last_access_time, locks, node.hit_count)
    yield tuple(node.key.token_ids) if node.key is not None else ()
    for key, child in node.children.items():
        yield key
        yield from _nodes(child)
