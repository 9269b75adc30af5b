"""Seam: where a scheduler puts the next prefill together.

SGLang tries this at every iteration, and decodes only if nothing comes of it. An order changes how
many prompt tokens it may take, lets it decode instead, or changes whose prompts go first. All of
it is undone before the call returns, so that queue and settings are SGLang's own between steps.

Every rank carries the same order out by itself, so all that is asked here is known to all ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sglang_patch.apply.prefill import OWN_CHOICE, STOCK, PrefillOrder, budget_of
from sglang_patch.seams import overtaking, runtime
from sglang_patch.seams.differences.last_steps import staying
from sglang_patch.seams.differences.upkeep import upkeep
from sglang_patch.seams.kv_room import keeps_room

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req, ScheduleBatch
    from sglang.srt.managers.scheduler import Scheduler


def can_be_told(scheduler: Scheduler) -> bool:
    """Whether an engine has the knob ``prefill``.

    Not without chunked prefill. Not with deterministic inference either: it cuts prompts at large
    fixed sizes, and prefills nothing if a budget is below one. Nor with a sliding window or a state
    space model, whose memory has parts that :mod:`sglang_patch.seams.kv_room` does not count.
    """
    return bool(
        scheduler.chunked_prefill_size
        and scheduler.truncation_align_size is None
        and not scheduler.is_hybrid_swa
        and not scheduler.is_hybrid_ssm
    )


def can_be_ordered(scheduler: Scheduler) -> bool:
    """Whether an order of requests is heeded: SGLang itself sorts the queue by any other policy
    than ``fcfs``, and by priority; the order is ignored there, the budget is not."""
    return bool(
        scheduler.policy.policy.value == "fcfs" and not scheduler.enable_priority_scheduling
    )


def around_get_new_batch_prefill(
    original: Callable[..., Any], scheduler: Scheduler, running_batch: ScheduleBatch
) -> Any:
    """Prefill what the step's order says, if there is one."""
    state = runtime.current()
    if state is None or not state.prefills:
        return original(scheduler, running_batch)
    order = state.order_for(scheduler.forward_ct + 1).prefill
    if order == STOCK or (scheduler.chunked_req is None and not scheduler.waiting_queue):
        return original(scheduler, running_batch)
    mixed_rows = len(running_batch.reqs) if scheduler.is_mixed_chunk else 0
    with state.stretch:
        budget = _budget(scheduler, running_batch, order, mixed_rows)
    if budget == 0:
        return _decode_instead(scheduler, running_batch)
    chunk_tokens = scheduler.chunked_prefill_size
    if budget != OWN_CHOICE:
        chunk_tokens = budget + mixed_rows
    first = order.first if can_be_ordered(scheduler) else ()
    if first and scheduler.chunked_req is not None:
        plan = overtaking.prefill_ahead(
            original, scheduler, running_batch, first, chunk_tokens - mixed_rows
        )
        if plan is not None:
            return plan
    return _prefill(original, scheduler, running_batch, chunk_tokens, first)


def _budget(
    scheduler: Scheduler, running_batch: ScheduleBatch, order: PrefillOrder, mixed_rows: int
) -> int:
    """Prompt tokens of the step; 0: it decodes; ``OWN_CHOICE``: as many as SGLang likes."""
    budget = budget_of(
        order,
        most_tokens=scheduler.chunked_prefill_size,
        page_size=scheduler.page_size,
        mixed_rows=mixed_rows,
        can_decode=_can_decode(scheduler, running_batch),
    )
    if budget == 0 and keeps_room(scheduler, running_batch):
        return 0
    if budget <= 0 or not keeps_room(scheduler, running_batch, budget):
        return OWN_CHOICE
    return budget


def _prefill(
    original: Callable[..., Any],
    scheduler: Scheduler,
    running_batch: ScheduleBatch,
    chunk_tokens: int,
    first: Sequence[str],
) -> Any:
    """Call SGLang with another chunk and another order of the queue, and undo both."""
    own_tokens, own_order = scheduler.chunked_prefill_size, scheduler.waiting_queue
    scheduler.chunked_prefill_size = chunk_tokens
    if first:
        scheduler.waiting_queue = in_order(own_order, first)
    try:
        return original(scheduler, running_batch)
    finally:
        scheduler.chunked_prefill_size = own_tokens
        if first:
            scheduler.waiting_queue = restored(own_order, scheduler.waiting_queue)


def _decode_instead(scheduler: Scheduler, running_batch: ScheduleBatch) -> Any:
    """No prefill at this step; what SGLang looks after on every such occasion is looked after."""
    from sglang.srt.managers.scheduler import NextBatchPlan

    if scheduler.grammar_manager.has_waiting_grammars():
        for req in scheduler.grammar_manager.get_ready_grammar_requests():
            scheduler._add_request_to_queue(req)
    upkeep()(scheduler)
    return NextBatchPlan(batch_to_run=None, running_batch=running_batch)


def _can_decode(scheduler: Scheduler, running_batch: ScheduleBatch) -> bool:
    """Whether a row is known to go on. Rows may turn out to have ended, as in SGLang itself."""
    return not running_batch.is_prefill_only and bool(staying(scheduler, running_batch))


def in_order(queue: Sequence[Req], first: Sequence[str]) -> list[Req]:
    """The queue with the requests named in ``first`` (rid) ahead, in that order."""
    place = {rid: index for index, rid in enumerate(first)}
    return sorted(queue, key=lambda req: place.get(req.rid, len(place)))


def restored(before: Sequence[Req], left: Sequence[Req]) -> list[Req]:
    """The requests that are ``left`` in the order of ``before``; new ones follow.

    An order holds for one step: what a later one does not name is where it would have been.
    """
    place = {id(req): index for index, req in enumerate(before)}
    return sorted(left, key=lambda req: place.get(id(req), len(place)))
