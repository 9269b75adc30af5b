"""Reading SGLang's waiting queue."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from governor_protos.limits import MAX_QUEUED
from governor_protos.messages import QueueFlag

from sglang_patch.governor import EngineGovernor
from sglang_patch.queue import QueueTable
from sglang_patch.rows import RowRecord
from sglang_patch.seams.ends import note_lost
from sglang_patch.seams.kv_room import rest_of
from sglang_patch.seams.prefix_hits import cached_tokens, keeps_prefixes
from sglang_patch.seams.requests import record
from sglang_patch.seams.runtime import record_of
from sglang_patch.seams.time_limits import note_waiting_limit

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req
    from sglang.srt.managers.scheduler import Scheduler

MAX_LOOKUPS = 8
"""Requests of a step that are looked up in the prefix cache."""

MAX_TOKENS_LOOKED_UP = 32_768
"""Prompt tokens of a step that are looked up; at least one request is, whatever its length."""

_STARTED = QueueFlag.STARTED.value


class WaitingQueue:
    """The waiting requests as rank 0 reads them at every step.

    What the prefix cache holds of a prompt is remembered, and looked up again in turns.
    """

    def __init__(self) -> None:
        self._reqs: list[Req] = []
        self._records: list[RowRecord] = []
        self._hits: dict[RowRecord, int] = {}
        self._turn = 0
        """Place in the queue at which known requests are looked up again."""

    def read(
        self,
        scheduler: Scheduler,
        governor: EngineGovernor,
        rows: Sequence[RowRecord],
        now_s: float,
        *,
        low_is_urgent: bool,
    ) -> QueueTable:
        """The queue for a snapshot: who is in the middle of a prefill, and the first that wait.

        Args:
            rows: the rows of the same snapshot. Who was waiting and is not among them has left:
                aborted, or out of time.
            low_is_urgent: see :func:`sglang_patch.seams.requests.record`.
        """
        started = scheduler.chunked_req
        reqs: list[Req] = [] if started is None else [started]
        reqs += scheduler.waiting_queue[: MAX_QUEUED - len(reqs)]
        if reqs != self._reqs:  # requests compare by identity
            before, self._reqs = self._records, reqs
            self._records = [record(req, governor, low_is_urgent=low_is_urgent) for req in reqs]
            self._hits = {one: self._hits[one] for one in self._records if one in self._hits}
            for lost in _lost(before, self._records, rows, scheduler.waiting_queue):
                note_lost(lost, governor, now_s)
        if governor.deadlines.waiting_s:
            for req, one in zip(reqs, self._records, strict=True):
                note_waiting_limit(req, one, governor.deadlines)
        self._look_up(scheduler.tree_cache)
        hits = self._hits
        table = QueueTable(
            self._records,
            [0] * len(reqs),
            [
                max(1, req.seqlen - hits.get(one, 0))
                for req, one in zip(reqs, self._records, strict=True)
            ],
            [len(req.output_ids) for req in reqs],
        )
        if started is not None:
            table.flags[0], table.missing_tokens[0] = _STARTED, max(1, rest_of(started))
        return table

    def _look_up(self, tree: Any) -> None:
        """Look up those that were never looked up, and then as many of the others as a step may."""
        count = len(self._reqs)
        if not count or not keeps_prefixes(tree):
            return
        known = self._hits
        new = (place for place in range(count) if self._records[place] not in known)
        places = list(itertools.islice(new, MAX_LOOKUPS)) if len(known) < count else []
        again = min(count, MAX_LOOKUPS) - len(places)
        places += ((self._turn + step) % count for step in range(again))
        self._turn = (self._turn + again) % count
        tokens = 0
        for place in places:
            req = self._reqs[place]
            tokens += req.seqlen
            if tokens > MAX_TOKENS_LOOKED_UP and place != places[0]:
                break
            known[self._records[place]] = cached_tokens(tree, req)


def _lost(
    before: Sequence[RowRecord],
    now: Sequence[RowRecord],
    rows: Sequence[RowRecord],
    waiting: Sequence[Req],
) -> list[RowRecord]:
    """Those that waited and neither wait nor run."""
    gone = set(before).difference(now, rows)
    if gone and len(waiting) >= len(now):  # they may wait beyond the part that is read
        gone.difference_update(map(record_of, waiting))
    return [one for one in before if one in gone]
