"""Seam: where a scheduler's rank 0 takes in requests, just before it plans a step."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from sglang_patch.seams import runtime
from sglang_patch.seams.requests import now_s


def after_pull_raw_reqs(requests: list[Any] | None, receiver: Any) -> None:
    """Decide about the coming step and let SGLang's own broadcast tell every rank.

    ``requests`` is None on ranks that only listen.
    """
    state = runtime.current()
    if requests is None or state is None or state.governor is None:
        return
    scheduler = state.scheduler
    if state.holds is not None:
        state.holds.step_over()
    busy = not scheduler.running_batch.is_empty() or scheduler.last_batch is not None
    # An iteration without a batch is no step.
    with state.stretch if busy else nullcontext():
        order = state.governor.plan(scheduler.forward_ct + 1, now_s(), busy=busy)
        if order is not None:
            requests.append(order)
        if state.metrics is not None and state.link is not None:
            state.metrics.publish(state.governor.tally, state.link, now_s())
