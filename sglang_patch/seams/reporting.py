"""Seam: where a scheduler says how many requests it runs.

SGLang reports its load while it takes in the results of a step. At that moment a parked row is
outside the running batch, and outside the batch of the step. It is not done: gateways, autoscalers
and SGLang's own load balancing have to count it. So SGLang is shown batches that hold it, for as
long as it reports:

================================================ ==============================================
reader                                           what it is shown
================================================ ==============================================
``/v1/loads``, ``/get_load``, load balancing     ``Scheduler.running_batch`` with the rows that
between replicas, adapters in use                are parked now
``sglang:num_running_reqs``, KV events,          the step's batch with the rows that sat this
``#running-req`` in the log, the status log,     step out
``sglang:decode_sum_seq_lens``, routing keys
forward-pass metrics                             rows that sat the step out among the queued
                                                 decode requests; the scheduled ones are those
                                                 that the device worked on
================================================ ==============================================

What a step has done (tokens, throughput, time per batch size, estimated work) stays what it is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sglang_patch.seams import runtime

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req, ScheduleBatch
    from sglang.srt.managers.scheduler import Scheduler


def reported_with_parked_rows(
    original: Callable[..., Any],
    state: runtime.SchedulerRuntime,
    batch: ScheduleBatch,
    result: Any,
) -> Any:
    """Let SGLang take in the results of ``batch``, and count parked rows as running meanwhile."""
    scheduler = state.scheduler
    state.reported = state.sat_out.pop(batch.forward_iter, ())
    running = scheduler.running_batch
    if state.parked is not None:
        scheduler.running_batch = _with_rows(running, state.parked.reqs)
    try:
        return original(scheduler, batch, result)
    finally:
        scheduler.running_batch = running
        state.reported = ()


def around_report_decode_stats(
    original: Callable[..., Any],
    reporter: Any,
    can_run_cuda_graph: bool,
    running_batch: ScheduleBatch | None = None,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Gauges and log lines of a decode step count the rows that sat it out."""
    state = runtime.current()
    if state is not None and state.reported and running_batch is not None:
        advanced = running_batch.batch_size()
        running_batch = _with_rows(running_batch, state.reported)
        # SGLang counts one token for each row of the batch by its size, not by its requests.
        running_batch.__dict__["batch_size"] = lambda: advanced
        if not reporter.enable_mfu_metrics:
            # SGLang then adds up the lengths of the requests. It estimates the device's work from
            # the same lengths where it is asked to; that work is the work of those that advanced.
            running_batch.seq_lens_cpu = None
    return original(reporter, can_run_cuda_graph, running_batch, *args, **kwargs)


def around_build_queued_request_metrics(original: Callable[..., Any], reporter: Any) -> Any:
    """In forward-pass metrics, a row that sat the step out is a decode request that is queued."""
    state = runtime.current()
    if state is None or not state.reported:
        return original(reporter)
    scheduler: Scheduler = reporter.scheduler
    waiting = scheduler.waiting_queue
    scheduler.waiting_queue = [*waiting, *state.reported]
    try:
        return original(reporter)
    finally:
        scheduler.waiting_queue = waiting


def _with_rows(batch: ScheduleBatch, reqs: Sequence[Req]) -> ScheduleBatch:
    """The batch as a report shows it. It is for reading only: its tensors lack the added rows."""
    shown = copy.copy(batch)
    shown.reqs = [*batch.reqs, *reqs]
    return shown
