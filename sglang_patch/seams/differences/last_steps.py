"""Difference: rows whose last token is under way when the next step is put together.

Only the overlap loop has them. SGLang up to 0.5.17 runs such a row once more and drops what comes
of it; 0.5.23 leaves it out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req, ScheduleBatch
    from sglang.srt.managers.scheduler import Scheduler


def staying(scheduler: Scheduler, batch: ScheduleBatch) -> list[Req]:
    """The rows of ``batch`` that SGLang would run now, as far as is known before it looks."""
    find = getattr(scheduler, "_reqs_finishing_inflight", None)
    leaving = {id(req) for req in find(batch)} if find is not None else ()
    return [req for req in batch.reqs if id(req) not in leaving and not req.finished()]
