"""Cutting rows out of SGLang's running batch for one step, and putting them back.

A parked row leaves the batch; its KV, its locks and its pool slot stay on the request, and under
the overlap loop its next token waits in the future map under that slot. By the end of every
scheduler iteration the running batch is whole again, so that abort, pause, flush, memory and idle
checks never see a difference.
"""

from __future__ import annotations

import copy
from collections.abc import Set
from typing import TYPE_CHECKING

from sglang_patch.seams.requests import may_park

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import ScheduleBatch
    from sglang.srt.managers.scheduler import Scheduler


def split(batch: ScheduleBatch, park_rids: Set[str]) -> ScheduleBatch | None:
    """Cut the rows named in ``park_rids`` out of ``batch``, in place.

    Returns:
        A batch of the parked rows, or None if nothing was parked: nobody to park, nobody would be
        left, a batch-wide state forbids it, or memory is short - then SGLang's own retraction must
        see the whole batch.
    """
    parked: list[int] = []
    kept: list[int] = []
    for index, req in enumerate(batch.reqs):
        (parked if req.rid in park_rids and may_park(req) else kept).append(index)
    if not parked or not kept or batch.sampling_info.has_custom_logit_processor:
        return None
    if not batch.check_decode_mem(selected_indices=kept):
        return None
    aside = _copy_of(batch, parked)
    aside.filter_batch(keep_indices=parked)
    batch.filter_batch(keep_indices=kept)
    return aside


def adopt(batch: ScheduleBatch, aside: ScheduleBatch) -> None:
    """Let ``batch``, emptied by retraction, become the parked rows instead.

    Merging into an emptied batch is not possible: its tensors are stale.
    """
    is_full = batch.batch_is_full
    batch.__dict__.update(aside.__dict__)
    batch.batch_is_full = is_full
    batch.sampling_info.penalizer_orchestrator.batch = batch


def put_back(scheduler: Scheduler, aside: ScheduleBatch) -> None:
    """Return parked rows to the running batch; rows that finished meanwhile are dropped."""
    aside.filter_batch()
    if aside.is_empty():
        return
    running = scheduler.running_batch
    if running.is_empty():
        aside.batch_is_full = running.batch_is_full
        scheduler.running_batch = aside
    else:
        running.merge_batch(aside)


def _copy_of(batch: ScheduleBatch, parked: list[int]) -> ScheduleBatch:
    """A batch that can be filtered without touching the original's shared state."""
    from sglang.srt.sampling.penaltylib import BatchedPenalizerOrchestrator

    aside = copy.copy(batch)
    aside.sampling_info = copy.copy(batch.sampling_info)
    aside.spec_info = copy.copy(batch.spec_info)
    # The orchestrator is one mutable object with a weak reference to its batch. Built over the
    # parked rows alone it needs no state: no row with a penalty is ever parked.
    shared = batch.sampling_info.penalizer_orchestrator
    rows = aside.reqs
    aside.reqs = [rows[index] for index in parked]
    aside.sampling_info.penalizer_orchestrator = BatchedPenalizerOrchestrator(
        vocab_size=shared.vocab_size, batch=aside, penalizers=set(shared.penalizers)
    )
    aside.reqs = rows
    return aside
