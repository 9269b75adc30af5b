"""Seam: where a scheduler puts the next decode step together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sglang_patch.governor import StepOrder
from sglang_patch.seams import runtime, speculation
from sglang_patch.seams.batches import adopt, split
from sglang_patch.seams.requests import now_s
from sglang_patch.seams.retracting import retract

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req, ScheduleBatch
    from sglang.srt.managers.scheduler import Scheduler


def around_update_running_batch(
    original: Callable[..., Any], scheduler: Scheduler, batch: ScheduleBatch
) -> Any:
    """Retract and park rows, say how much is drafted, and let SGLang prepare the rest."""
    state = runtime.current()
    if state is None:
        return original(scheduler, batch)
    order = state.take_order(scheduler.forward_ct + 1)
    with state.carrying_out:
        retracted = _make_room(state, batch, order)
    vetoed = bool(order.park) and state.parked is None
    to_run = original(scheduler, batch)
    if state.parked is not None and batch.is_empty():
        adopt(batch, state.parked)
        state.parked = None
        to_run = original(scheduler, batch)
    if state.governor is None:
        return to_run
    with state.stretch:
        if to_run is None:
            # SGLang from 0.5.23 on: it waits a step for the memory of rows whose end is under way.
            state.governor.decode_skipped(retracted=retracted)
        else:
            state.governor.decode_planned(
                _records(state.parked),
                _records(batch),
                now_s(),
                vetoed=vetoed,
                retracted=retracted,
            )
    return to_run


def _make_room(state: runtime.SchedulerRuntime, batch: ScheduleBatch, order: StepOrder) -> int:
    """Retract and park as ordered, before SGLang looks. Returns how many rows were retracted."""
    speculation.tell(state.scheduler, order.drafts)
    park_rids = frozenset(order.park)
    if not park_rids and not order.retract:
        return 0
    # SGLang learns that there is room again by seeing the batch shrink, so what is filtered
    # here, before it looks, must be told.
    retracted: list[Req] = []
    rows = batch.batch_size()
    batch.filter_batch()
    if order.retract and not batch.is_empty():
        retracted = retract(state.scheduler, batch, frozenset(order.retract))
    if batch.batch_size() < rows:
        batch.batch_is_full = False
    if park_rids and not batch.is_empty():
        state.parked = split(batch, park_rids)
    return len(retracted)


def _records(batch: ScheduleBatch | None) -> list[Any]:
    if batch is None:
        return []
    found = (runtime.record_of(req) for req in batch.reqs)
    return [record for record in found if record is not None]
