"""Seam: where a scheduler launches a step and takes in its results."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from governor_protos.limits import MAX_COUNT
from governor_protos.messages import StepKind

from sglang_patch.governor import EngineGovernor
from sglang_patch.queue import NOBODY
from sglang_patch.seams import runtime, speculation
from sglang_patch.seams.batches import put_back
from sglang_patch.seams.ends import note_end
from sglang_patch.seams.reporting import reported_with_parked_rows
from sglang_patch.seams.requests import now_s, read_table
from sglang_patch.steps import LaunchedStep

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req, ScheduleBatch
    from sglang.srt.managers.scheduler import Scheduler

WAITING_SEEN = 1024
"""Requests of the waiting queue whose prompt tokens are summed up for a snapshot."""


def around_run_batch(
    original: Callable[..., Any],
    scheduler: Scheduler,
    batch: ScheduleBatch,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Report the batch to the controller so that it decides while the device works.

    In the overlap loop the launch returns at once, so the report follows it and costs the device
    nothing. In the normal loop the call lasts as long as the step, so the report precedes it.
    """
    state = runtime.current()
    if state is not None:
        state.launched(scheduler.forward_ct + 1)
    kind = None if state is None or state.governor is None else _kind(batch)
    if state is None or state.governor is None or kind is None:
        return original(scheduler, batch, *args, **kwargs)
    launched_s = now_s()
    if scheduler.enable_overlap:
        result = original(scheduler, batch, *args, **kwargs)
        launch = _launched(batch, kind, scheduler.forward_ct, launched_s)
        _note_drafts(result, launch)
        with state.stretch:
            _report(state, state.governor, batch, launch)
        return result
    launch = _launched(batch, kind, scheduler.forward_ct + 1, launched_s)
    with state.stretch:
        _report(state, state.governor, batch, launch)
    result = original(scheduler, batch, *args, **kwargs)
    _note_drafts(result, launch)
    return result


def after_launch_batch_sample(result: Any, scheduler: Scheduler, *args: Any, **kwargs: Any) -> None:
    """End of an iteration of the overlap loop: the running batch becomes whole again."""
    _return_parked(scheduler)


def around_process_batch_result(
    original: Callable[..., Any], scheduler: Scheduler, batch: ScheduleBatch, result: Any
) -> Any:
    """Measure the step; in the normal loop, the running batch becomes whole again."""
    state = runtime.current()
    if state is None:
        return original(scheduler, batch, result)
    returned = reported_with_parked_rows(original, state, batch, result)
    if state.governor is not None and batch.forward_iter is not None:
        with state.stretch:
            _take_in(state.governor, batch, result)
    if not scheduler.enable_overlap:
        _return_parked(scheduler)
    return returned


def _take_in(governor: EngineGovernor, batch: ScheduleBatch, result: Any) -> None:
    """Note the tokens of each row, who has ended, and how long the step took."""
    done_s = now_s()
    step = speculation.drafted(result)
    accepted = 0
    for req in batch.reqs:
        record = runtime.record_of(req)
        if record is not None:
            # A row that does not advance (finished before, retracted) verified nothing.
            if step is not None and len(req.output_ids) > record.tokens_seen:
                accepted += speculation.note_drafts(req, record, step)
            record.note_tokens(len(req.output_ids), done_s)
            if req.finished_reason is not None and not record.ended:
                note_end(req, record, governor, done_s)
    governor.finished(batch.forward_iter, done_s, accepted)


def _return_parked(scheduler: Scheduler) -> None:
    state = runtime.current()
    if state is not None and state.parked is not None:
        with state.carrying_out:
            aside, state.parked = state.parked, None
            put_back(scheduler, aside)


def _kind(batch: ScheduleBatch) -> StepKind | None:
    mode = batch.forward_mode
    if mode.is_mixed():
        return StepKind.MIXED
    if mode.is_decode():
        return StepKind.DECODE
    return StepKind.PREFILL if mode.is_extend() else None


def _launched(batch: ScheduleBatch, kind: StepKind, step: int, launched_s: float) -> LaunchedStep:
    return LaunchedStep(
        step=step,
        kind=kind,
        rows=len(batch.reqs),
        context_tokens=sum(len(req.origin_input_ids) + len(req.output_ids) for req in batch.reqs),
        prefill_tokens=0 if kind is StepKind.DECODE else _prompt_tokens(batch),
        launched_s=launched_s,
    )


def _note_drafts(result: Any, launch: LaunchedStep) -> None:
    """Only a launch shows how much is drafted: where nothing is ordered SGLang chooses in it."""
    step = speculation.drafted(result)
    if step is not None and launch.kind is StepKind.DECODE:
        launch.draft_length = step.length
        launch.draft_tokens = step.computed(launch.rows)


def _prompt_tokens(batch: ScheduleBatch) -> int:
    """Prompt tokens of the step. SGLang counts the one token of each decode row of a mixed step
    along with them."""
    decoding = batch.decoding_reqs if batch.forward_mode.is_mixed() else None
    return max(0, (batch.extend_num_tokens or 0) - len(decoding or ()))


def _report(
    state: runtime.SchedulerRuntime,
    governor: EngineGovernor,
    batch: ScheduleBatch,
    launch: LaunchedStep,
) -> None:
    scheduler = state.scheduler
    if launch.kind is StepKind.MIXED:
        # Decode rows ride along without passing the seam where rows are parked and counted.
        for record in filter(None, map(runtime.record_of, batch.reqs)):
            record.advance(launch.launched_s)
    governor.launched(launch)
    stats = scheduler.pool_stats_observer.get_pool_stats()
    waiting = scheduler.waiting_queue
    low_is_urgent = bool(scheduler.server_args.schedule_low_priority_values_first)
    rows = read_table(
        _rows(state, batch, launch.kind),
        scheduler.chunked_req,
        governor,
        low_is_urgent=low_is_urgent,
    )
    queue = NOBODY
    if state.waiting is not None:
        queue = state.waiting.read(
            scheduler, governor, rows.records, now_s(), low_is_urgent=low_is_urgent
        )
    governor.observe(
        rows,
        for_step=launch.step + 1,
        now_s=now_s(),
        kv_used_tokens=min(int(stats.full_num_used), MAX_COUNT),
        kv_total_tokens=min(scheduler.max_total_num_tokens, MAX_COUNT),
        waiting_requests=len(waiting),
        waiting_prefill_tokens=min(
            sum(len(req.origin_input_ids) for req in itertools.islice(waiting, WAITING_SEEN)),
            MAX_COUNT,
        ),
        queue=queue,
    )


def _rows(state: runtime.SchedulerRuntime, batch: ScheduleBatch, kind: StepKind) -> Iterable[Req]:
    """All rows that may take part in the step after this one."""
    rows: Iterable[Req] = batch.reqs
    if kind is StepKind.PREFILL:
        rows = itertools.chain(state.scheduler.running_batch.reqs, rows)
    elif state.parked is not None:
        rows = itertools.chain(rows, state.parked.reqs)
    started = state.scheduler.chunked_req
    if started is not None and all(req is not started for req in batch.reqs):
        rows = itertools.chain(rows, (started,))  # it was held, or others have passed it
    return rows
