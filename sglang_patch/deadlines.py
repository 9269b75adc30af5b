"""Watches the time limits of the engine's requests, and its bounded queue.

:mod:`sglang_patch.apply.time_limits` has the rules.
"""

from __future__ import annotations

import math

from governor_protos.messages import RowFlag

from sglang_patch.apply.time_limits import must_advance, must_enter
from sglang_patch.paces import Paces
from sglang_patch.queue import QueueTable
from sglang_patch.rows import RowRecord, RowTable

_PINNED = RowFlag.PINNED.value


class Deadlines:
    """What the engine ends requests for, and who is near that.

    Args:
        running_s: the engine ends a request so long after its prefill began; 0: never.
        waiting_s: the engine ends a request that has waited for so long; 0: never.
        queue_places: the engine ends those who come while so many wait; None: any number may wait.
        chunk_tokens: prompt tokens that the engine prefills in a step at most; 0: any number.
    """

    def __init__(
        self,
        *,
        running_s: float = 0.0,
        waiting_s: float = 0.0,
        queue_places: int | None = None,
        chunk_tokens: int = 0,
    ) -> None:
        self.running_s = max(0.0, running_s)
        self.waiting_s = max(0.0, waiting_s)
        self.of_clients = False
        """Whether a client has ever set a time limit of its own."""
        self._queue_places = math.inf if queue_places is None else queue_places
        self._chunk_tokens = chunk_tokens if chunk_tokens > 0 else 1 << 62

    def pin(self, table: RowTable, paces: Paces, now_s: float) -> None:
        """Flag the rows that may not sit out the next step, for the sake of their limits."""
        if not self.running_s:
            return
        step_s = paces.step_s(len(table.records))
        for index, record in enumerate(table.records):
            if record.runs is not None and must_advance(
                record.runs, now_s, _steps_left(record, table.output_tokens[index]), step_s
            ):
                table.flags[index] |= _PINNED

    def is_somebody_late(
        self, queue: QueueTable, waiting: int, rows: int, paces: Paces, now_s: float
    ) -> bool:
        """Whether the engine should let in whom it would without Governor.

        Args:
            queue: those who wait, as far as they are looked at, and who is in the middle of a
                prefill. Nobody is looked at on an engine that cannot be told about prefill.
            waiting: how many wait.
            rows: how many run.
        """
        if 2 * waiting >= self._queue_places:
            return True
        if not (self.running_s or self.waiting_s or self.of_clients):
            return False
        if waiting > len(queue.records):
            return True  # nobody knows of the others
        prefill_s = paces.prefill_s(sum(queue.missing_tokens), self._chunk_tokens)
        step_s = paces.step_s(rows + len(queue.records))
        return any(
            (record.waits is not None and must_enter(record.waits, now_s, prefill_s))
            or (
                record.runs is not None
                and must_advance(record.runs, now_s, _steps_left(record, said), step_s, prefill_s)
            )
            for record, said in zip(queue.records, queue.output_tokens, strict=True)
        )


def _steps_left(record: RowRecord, output_tokens: int) -> int:
    """Steps that a row may still need: one for each token that it may still write."""
    return max(0, record.max_new_tokens - output_tokens)
