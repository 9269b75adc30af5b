"""Reading the time limits by which SGLang ends requests.

| limit | runs from | ends |
|---|---|---|
| ``SGLANG_REQ_WAITING_TIMEOUT`` | joining the queue | who still waits |
| ``SGLANG_REQ_RUNNING_TIMEOUT`` | the first step of the prefill | who still runs |
| ``timeout`` of a session | its last request | the session, so that its next request fails |
| ``--max-queued-requests`` | (a number, not a time) | who comes while the queue is full |
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sglang_patch.apply.time_limits import TimeLimit
from sglang_patch.deadlines import Deadlines
from sglang_patch.rows import RowRecord

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req
    from sglang.srt.managers.scheduler import Scheduler


def deadlines_of(scheduler: Scheduler) -> Deadlines:
    """The limits of this engine. SGLang's variables do not change while it runs."""
    from sglang.srt.environ import envs

    return Deadlines(
        running_s=envs.SGLANG_REQ_RUNNING_TIMEOUT.get(),
        waiting_s=envs.SGLANG_REQ_WAITING_TIMEOUT.get(),
        queue_places=scheduler.max_queued_requests,
        chunk_tokens=scheduler.chunked_prefill_size or 0,
    )


def ends_running_requests() -> bool:
    """Whether SGLang ends requests that run for too long."""
    from sglang.srt.environ import envs

    return bool(envs.SGLANG_REQ_RUNNING_TIMEOUT.get() > 0)


def ends_waiting_requests() -> bool:
    """Whether SGLang ends requests that wait for too long."""
    from sglang.srt.environ import envs

    return bool(envs.SGLANG_REQ_WAITING_TIMEOUT.get() > 0)


def has_session_limit(req: Req) -> bool:
    """Whether the request's session is closed unless it ends in time."""
    return req.session is not None and req.session.timeout is not None


def note_session_limit(req: Req, row: RowRecord, deadlines: Deadlines, now_s: float) -> None:
    """Note when SGLang closes the session of a request that has one with a limit."""
    if has_session_limit(req):
        idle_s = time.monotonic() - req.session.last_active_time
        row.waits = TimeLimit(now_s - idle_s, req.session.timeout)
        deadlines.of_clients = True


def note_running_limit(req: Req, row: RowRecord, deadlines: Deadlines) -> None:
    """Note when SGLang ends a request that has begun to run."""
    if deadlines.running_s and row.runs is None:
        began_s = req.time_stats.forward_entry_time
        if began_s > 0:
            row.runs = TimeLimit(began_s, deadlines.running_s)


def note_waiting_limit(req: Req, row: RowRecord, deadlines: Deadlines) -> None:
    """Note when SGLang ends a request that waits: it begins to wait anew if it is retracted.

    The limit of its session counts if it ends earlier.
    """
    if deadlines.waiting_s:
        began_s = req.time_stats.wait_queue_entry_time
        limit = TimeLimit(began_s, deadlines.waiting_s)
        of_session = row.waits if has_session_limit(req) else None
        if began_s > 0 and (of_session is None or limit.end_s < of_session.end_s):
            row.waits = limit
