"""KV memory that a request in the middle of its prefill still needs.

In stock SGLang nobody else gets memory between two chunks of a prompt, so what sufficed when it was
let in suffices to its end; a chunk that does not fit ends the engine. Where decode steps, or other
prompts, come between chunks, the room for the rest has to be kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sglang_patch.seams.differences.kv_record import kv_record

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req, ScheduleBatch
    from sglang.srt.managers.scheduler import Scheduler


def rest_of(req: Req) -> int:
    """Tokens of a started request that no chunk has covered yet."""
    return int(req.seqlen) - kv_record().prefilled_to(req)


def free_tokens(scheduler: Scheduler) -> int:
    """KV tokens that can be had: free ones, and those that only the prefix cache holds."""
    return int(
        scheduler.token_to_kv_pool_allocator.available_size()
        + scheduler.tree_cache.evictable_size()
    )


def in_pages(tokens: int, page_size: int) -> int:
    return -(-tokens // page_size) * page_size


def whole(req: Req, prompt_tokens: int, page_size: int) -> int:
    """What a request needs from here to its end, with ``prompt_tokens`` still to be prefilled."""
    return in_pages(prompt_tokens, page_size) + unsaid(req) + page_size


def unsaid(req: Req) -> int:
    """Tokens that a request may still generate, as SGLang counts them when it lets requests in."""
    from sglang.srt.managers.schedule_policy import CLIP_MAX_NEW_TOKENS

    rest: int = req.sampling_params.max_new_tokens - len(req.output_ids)
    return max(0, min(rest, int(CLIP_MAX_NEW_TOKENS)))


def keeps_room(scheduler: Scheduler, running_batch: ScheduleBatch, budget: int = 0) -> bool:
    """Whether the started request, if there is one, can be finished after this step.

    Without room it is prefilled as stock SGLang would, and then is a row that can be retracted like
    any other; if it were kept waiting, other rows would be retracted for it, the last one for good.

    Args:
        budget: prompt tokens of the step; 0 to decode.
    """
    started = scheduler.chunked_req
    if started is None:
        return True
    if budget == 0 and not _is_accounted_for(started):
        return False
    rest = rest_of(started)
    needed = in_pages(rest, scheduler.page_size) + scheduler.page_size
    if scheduler.is_mixed_chunk:
        needed += mixed_step_tokens(scheduler, running_batch, rest, budget)
    elif budget == 0:
        # Rows that have ended are still among them, and hold no KV any more.
        alive = [index for index, req in enumerate(running_batch.reqs) if not req.finished()]
        needed += running_batch.new_tokens_required_next_decode(selected_indices=alive)
    else:
        return True  # no row advances before it is done
    return bool(free_tokens(scheduler) >= needed)


def mixed_step_tokens(
    scheduler: Scheduler, running_batch: ScheduleBatch, rest: int, budget: int
) -> int:
    """KV tokens that rows take while they ride along with the rest of a prompt.

    SGLang does not look for room before a mixed step. After a pure decode step (``budget`` 0) the
    rest goes in chunks of the start-up size.
    """
    rows: int = len(running_batch.reqs)
    chunk: int = budget or max(scheduler.page_size, scheduler.chunked_prefill_size - rows)
    steps = -(-rest // chunk) + (1 if budget else 2)
    return rows * (steps + int(scheduler.page_size))


def _is_accounted_for(started: Req) -> bool:
    """Whether SGLang's own check of a busy engine counts all KV of a request in no batch.

    It is a check for development, off by default, and ends an engine whose count is off.
    """
    from sglang.srt.environ import envs

    strict = envs.SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY.get()
    return not strict or kv_record().is_all_cached(started)
