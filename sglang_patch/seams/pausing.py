"""Seam: where a scheduler is paused, mostly for other weights.

With ``mode="retract"`` SGLang frees what running rows have written, so that it is computed again by
the weights that come. Their prompts stay in the prefix cache. A row that Governor has retracted
before that has left what it wrote in the prefix cache as well, and would find it there, computed
by the weights that were.

So everything goes that no live request's prompt holds. SGLang evicts in an order of its own, and
has no way to name what is to go. What else is lost is what earlier requests have left, which a
flush would take as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sglang_patch.seams.differences.prefix_cache import prefix_cache
from sglang_patch.seams.prefix_hits import keeps_prefixes

if TYPE_CHECKING:
    from sglang.srt.managers.scheduler import Scheduler


def after_pause_generation(returned: Any, scheduler: Scheduler, request: Any) -> None:
    """Drop what rows that Governor retracted have left in the prefix cache. Every rank does so by
    itself; all of them wait at this point, so nothing else is held."""
    tree = scheduler.tree_cache
    waiting = scheduler.waiting_queue
    if request.mode != "retract" or not keeps_prefixes(tree):
        return
    if not any(getattr(req, "governor_retracted", False) for req in waiting):
        return
    from sglang.srt.mem_cache.base_prefix_cache import EvictParams, MatchPrefixParams

    held = []
    for req in waiting:
        key = prefix_cache().key(req, req.origin_input_ids)
        node = tree.match_prefix(MatchPrefixParams(key=key)).last_device_node
        held.append((node, tree.inc_lock_ref(node).to_dec_params()))
    tree.evict(EvictParams(num_tokens=tree.evictable_size()))
    for node, receipt in held:
        tree.dec_lock_ref(node, receipt)
