"""KV slots of drafts, entered in SGLang's table without its kernel."""

from __future__ import annotations

from sglang_patch.platforms.speculation.cache_ops import assign_req_to_token_pool_func
from sglang_patch.platforms.speculation.replacing import Replacement, replace_all

REPLACEMENT = Replacement(
    "sglang.srt.mem_cache.allocation.assign_req_to_token_pool_func", assign_req_to_token_pool_func
)


def enter_slots_without_kernels() -> None:
    """Have slots entered by the reference CPU platform's function; the emulated device has no
    kernels either.

    Raises:
        RuntimeError: this SGLang is not a version that the platform knows.
    """
    replace_all([REPLACEMENT])
