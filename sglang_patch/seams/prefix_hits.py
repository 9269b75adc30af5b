"""How much of a prompt the prefix cache holds, looked up without a trace.

SGLang's own lookup splits nodes and renews their time of use. Where one rank looks and the others
do not, that would make their caches differ, and with them the batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req


def is_plain(tree: Any) -> bool:
    """Whether it is one of SGLang's two caches for one kind of KV in device memory alone."""
    from sglang.srt.mem_cache.chunk_cache import ChunkCache
    from sglang.srt.mem_cache.radix_cache import RadixCache

    return type(tree) in (RadixCache, ChunkCache)


def keeps_prefixes(tree: Any) -> bool:
    """Whether it is the plain radix tree, and in use: of other caches nothing is known."""
    from sglang.srt.mem_cache.radix_cache import RadixCache

    return type(tree) is RadixCache and not tree.disable


def cached_tokens(tree: Any, req: Req) -> int:
    """Tokens that a waiting request would find in the cache if it were prefilled now.

    0 in other caches than the plain radix tree. The last token is never found, as its output is
    needed; nor is what lies behind the start of the log-probabilities that a request asks for.
    """
    from sglang.srt.mem_cache.radix_cache import RadixKey

    if not keeps_prefixes(tree) or req.positional_embed_overrides is not None:
        return 0
    page_size: int = tree.page_size
    tokens = req.origin_input_ids
    if req.output_ids:
        tokens = tokens + req.output_ids
    key = RadixKey(tokens, req.extra_key, limit=req._compute_max_prefix_len(len(tokens)))
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
