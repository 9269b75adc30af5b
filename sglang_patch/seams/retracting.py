"""Freeing the KV memory of rows before a decode step, for others who wait.

SGLang does the same when memory runs out: a retracted row goes back to the waiting queue with what
it has written, and is prefilled again. Here it also leaves its KV in the prefix cache, as a row
that has finished does. Whoever needs the memory can have it; until then the row comes back for
next to nothing.

Only where a decode step is put together: what a step under way has computed for a retracted row is
dropped when its results come in, and computed again. Every rank carries the order out by itself,
so all that is asked here is known to all ranks.
"""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING

from sglang_patch.seams import prefilling
from sglang_patch.seams.differences.kv_record import kv_record
from sglang_patch.seams.differences.last_steps import staying
from sglang_patch.seams.kv_room import whole
from sglang_patch.seams.prefix_hits import is_plain
from sglang_patch.seams.requests import may_retract
from sglang_patch.seams.time_limits import ends_running_requests, ends_waiting_requests

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req, ScheduleBatch
    from sglang.srt.managers.scheduler import Scheduler


def can_be_told(scheduler: Scheduler) -> bool:
    """Whether an engine has the knob ``retract``.

    Only beside the knob ``prefill``, without which nobody is told who waits. Not with other caches
    than SGLang's two plain ones, which may fetch a request's prefix from elsewhere as it queues.
    Nor where a time limit ends those who wait, or those who run, which is counted from their first
    prefill on: a request would be ended for a wait that it owes to others.
    """
    return bool(
        prefilling.can_be_told(scheduler)
        and is_plain(scheduler.tree_cache)
        and not ends_waiting_requests()
        and not ends_running_requests()
    )


def retract(scheduler: Scheduler, batch: ScheduleBatch, rids: Set[str]) -> list[Req]:
    """Send rows of ``batch``, which holds no finished ones, back to the waiting queue.

    Args:
        rids: the rows that are to go. Those that may not, or could not come back, stay; so does
            one of them if nobody else would.

    Returns:
        The rows that have gone.
    """
    under_way = _first_tokens_under_way(scheduler)
    going = [
        index
        for index, req in enumerate(batch.reqs)
        if req.rid in rids
        and id(req) not in under_way
        and may_retract(req)
        and _fits_alone(scheduler, req)
    ]
    gone_rids = {batch.reqs[index].rid for index in going}
    if going and all(req.rid in gone_rids for req in staying(scheduler, batch)):
        going.pop()
    going = going[: _places(scheduler)]
    if not going:
        return []
    gone = [batch.reqs[index] for index in going]
    left = set(going)
    batch.filter_batch(
        keep_indices=[index for index in range(len(batch.reqs)) if index not in left]
    )
    for req in gone:
        kv_record().release(req, scheduler.tree_cache)
        req.reset_for_retract()
        req.governor_retracted = True
    _count(scheduler, gone)
    for req in gone:
        scheduler._add_request_to_queue(req, is_retracted=True)
    return gone


def _first_tokens_under_way(scheduler: Scheduler) -> Set[int]:
    """Rows whose prefill is not known to be done.

    One that is retracted every time before its first token is in would never get on. SGLang also
    loses its place among the log-probabilities of a prefill when it drops one row of it.
    """
    last = scheduler.last_batch
    if not scheduler.enable_overlap or last is None or not last.forward_mode.is_extend():
        return frozenset()
    return {id(req) for req in last.reqs}


def _fits_alone(scheduler: Scheduler, req: Req) -> bool:
    """Whether SGLang would let it in again if nobody else were there.

    It sets aside up to 4,096 tokens for what a request may still write, however much it has
    written; so a long one may have been let in once, and never again.
    """
    needed = whole(req, req.seqlen, scheduler.page_size)
    return bool(needed < scheduler.max_total_num_tokens)


def _places(scheduler: Scheduler) -> int | None:
    """How many may join the queue: SGLang ends those for whom it has no place."""
    most = scheduler.max_queued_requests
    return None if most is None else max(0, most - len(scheduler.waiting_queue))


def _count(scheduler: Scheduler, gone: list[Req]) -> None:
    """Count them in SGLang's own metrics, as it counts those that it retracts itself."""
    reporter = scheduler.metrics_reporter
    reporter.num_retracted_reqs += len(gone)
    if reporter.enable_metrics:
        reporter.metrics_collector.increment_retracted_reqs(
            num_retracted_reqs=len(gone),
            num_retracted_input_tokens=sum(len(req.origin_input_ids) for req in gone),
            num_retracted_output_tokens=sum(len(req.output_ids) for req in gone),
        )
