"""How much of a prompt the prefix cache holds, looked up without a trace.

SGLang's own lookup splits nodes and renews their time of use. Where one rank looks and the others
do not, that would make their caches differ, and with them the batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sglang_patch.seams.differences.prefix_cache import prefix_cache

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req


def is_plain(tree: Any) -> bool:
    """Whether it is SGLang's own cache for one kind of KV in device memory alone, in use or not."""
    return prefix_cache().is_plain(tree)


def keeps_prefixes(tree: Any) -> bool:
    """Whether it is a plain radix tree, and in use: of other caches nothing is known."""
    return prefix_cache().keeps_prefixes(tree)


def cached_tokens(tree: Any, req: Req) -> int:
    """Tokens that a waiting request would find in the cache if it were prefilled now.

    0 in other caches than the plain radix tree. The last token is never found, as its output is
    needed; nor is what lies behind the start of the log-probabilities that a request asks for.
    """
    if not keeps_prefixes(tree) or req.positional_embed_overrides is not None:
        return 0
    tokens = req.origin_input_ids
    if req.output_ids:
        tokens = tokens + req.output_ids
    return prefix_cache().found(tree, req, tokens, req._compute_max_prefix_len(len(tokens)))
