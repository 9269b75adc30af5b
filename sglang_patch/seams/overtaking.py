"""Short prompts that go ahead of the one in the middle of its prefill.

SGLang continues the started prompt before it takes any other. For one step the scheduler is shown a
queue of those that go ahead and no started request; the latter then is one that stays behind for a
step, which SGLang knows from models with a sliding window. Nothing is cut at such a step, as there
can be one started request only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sglang_patch.seams.kv_room import (
    free_tokens,
    in_pages,
    keeps_room,
    rest_of,
    unsaid,
    whole,
)
from sglang_patch.seams.prefix_hits import cached_tokens, is_plain

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req, ScheduleBatch
    from sglang.srt.managers.scheduler import Scheduler


def prefill_ahead(
    original: Callable[..., Any],
    scheduler: Scheduler,
    running_batch: ScheduleBatch,
    first: Sequence[str],
    budget: int,
) -> Any:
    """Prefill the requests named before the started one, as far as whole prompts fit.

    Args:
        first: ids (rid) in order; only those before the started request's go ahead.
        budget: prompt tokens of the step.

    Returns:
        SGLang's plan of a prefill; None if nobody goes ahead.
    """
    if not _may_overtake(scheduler, running_batch):
        return None
    ahead = _those_that_fit(
        scheduler, running_batch, named_before(first, scheduler.chunked_req.rid), budget
    )
    if not ahead:
        return None
    rows = len(running_batch.reqs) if scheduler.is_mixed_chunk else 0
    own = {
        name: getattr(scheduler, name)
        for name in ("chunked_req", "waiting_queue", "chunked_prefill_size", "max_prefill_tokens")
    }
    scheduler.chunked_req = None
    scheduler.waiting_queue = list(ahead)
    scheduler.chunked_prefill_size = None
    # SGLang lets prompts in that stay below it.
    scheduler.max_prefill_tokens = budget + rows + 1
    try:
        plan = original(scheduler, running_batch)
    finally:
        gone = {id(req) for req in ahead} - {id(req) for req in scheduler.waiting_queue}
        for name, value in own.items():
            setattr(scheduler, name, value)
        scheduler.waiting_queue = [req for req in own["waiting_queue"] if id(req) not in gone]
    if plan.batch_to_run is None:
        return None
    # SGLang has counted what is still to be prefilled in the queue that it was shown.
    pending_tokens = scheduler.load_inquirer._get_num_pending_tokens()
    plan.batch_to_run.prefill_stats.num_pending_tokens = pending_tokens
    return plan


def named_before(first: Sequence[str], started: str) -> list[str]:
    """Those of ``first`` that go ahead of the started request: none unless it is named, too."""
    return list(first[: first.index(started)]) if started in first else []


def _may_overtake(scheduler: Scheduler, running_batch: ScheduleBatch) -> bool:
    """Whether the started request may stay behind others' prompts on this engine, at this step.

    Not where its adapter could be replaced by theirs, not with caches whose locks and memory work
    otherwise, and not at a step at which requests may join the queue that nobody has looked at.
    """
    return (
        not scheduler.enable_lora
        and is_plain(scheduler.tree_cache)
        and not scheduler.grammar_manager.has_waiting_grammars()
        and not running_batch.batch_is_full
        and keeps_room(scheduler, running_batch)
    )


def _those_that_fit(
    scheduler: Scheduler, running_batch: ScheduleBatch, named: Sequence[str], budget: int
) -> list[Req]:
    """As many of the named as fit, in order: into the budget with whole prompts, into the batch
    beside the started request, and into memory beside what that one and all rows will need."""
    waiting = {req.rid: req for req in scheduler.waiting_queue} if named else {}
    slots = scheduler.get_num_allocatable_reqs(len(running_batch.reqs) + 1)
    room = free_tokens(scheduler) - _promised(scheduler, running_batch)
    found: list[Req] = []
    for rid in named:
        req = waiting.get(rid)
        if req is None:
            continue
        length = req.seqlen
        # A cached prefix gets locked, and is then no memory that could be had.
        room -= whole(req, length, scheduler.page_size)
        if len(found) >= slots or room <= 0:
            break
        # To count what is cached costs time in the length of the prompt.
        missing = length
        if length > budget:
            missing -= cached_tokens(scheduler.tree_cache, req)
        budget -= in_pages(missing, scheduler.page_size)
        if budget < 0:
            break
        found.append(req)
    return found


def _promised(scheduler: Scheduler, running_batch: ScheduleBatch) -> int:
    """KV tokens for the rest of the started request and, by SGLang's own estimate, of all rows."""
    started = scheduler.chunked_req
    ratio = scheduler.new_token_ratio_tracker.current
    rows = sum(unsaid(req) for req in running_batch.reqs)
    return whole(started, rest_of(started), scheduler.page_size) + int(rows * ratio)
