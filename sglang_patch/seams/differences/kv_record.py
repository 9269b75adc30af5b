"""Difference: where a request keeps what it knows of its KV, and how it gives it up."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req


class KvRecord(Protocol):
    """One way in which SGLang has kept it."""

    def prefilled_to(self, req: Req) -> int:
        """Tokens of a started request that a chunk has covered."""

    def is_all_cached(self, req: Req) -> bool:
        """Whether the prefix cache owns all KV that the request holds."""

    def release(self, req: Req, tree: Any) -> None:
        """Free a request's KV, and leave in the prefix cache what it can keep of it."""


class OnRequest:
    """Up to 0.5.17: lengths are the request's own; its record goes with its memory."""

    def prefilled_to(self, req: Req) -> int:
        return int(req.extend_range.end)

    def is_all_cached(self, req: Req) -> bool:
        return req.kv is None or req.cache_protected_len >= req.kv.kv_allocated_len

    def release(self, req: Req, tree: Any) -> None:
        from sglang.srt.mem_cache.common import release_kv_cache

        release_kv_cache(req, tree)


class OnRecord:
    """In 0.5.23: a request always has a record, and its lengths are there."""

    def prefilled_to(self, req: Req) -> int:
        return int(req.extend_end)

    def is_all_cached(self, req: Req) -> bool:
        kv = req.kv
        return not kv.holds_kv or kv.cache_protected_len >= kv.kv_allocated_len

    def release(self, req: Req, tree: Any) -> None:
        from sglang.srt.mem_cache.common import release_kv_cache

        release_kv_cache(req, tree, checkpoint=True)


@functools.cache
def kv_record() -> KvRecord:
    """The way of this SGLang."""
    from sglang.srt.managers.schedule_batch import ReqKvInfo

    return OnRecord() if hasattr(ReqKvInfo, "holds_kv") else OnRequest()
