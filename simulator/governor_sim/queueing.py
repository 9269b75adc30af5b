"""The waiting queue as a simulated engine reports it."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from governor_protos.limits import MAX_QUEUED
from governor_protos.messages import QueueFlag

from governor_sim.batching import Batcher
from governor_sim.rows import UNKNOWN, SimRow
from sglang_patch.queue import QueueTable
from sglang_patch.rows import RowRecord

_STARTED = QueueFlag.STARTED.value
LOOKED_UP = 8
"""Requests that are looked up again in the prefix cache at each step: what it holds changes."""


class QueueReader:
    """Tables of who waits, with what the prefix cache holds taken off.

    Args:
        batcher: whose queue it is.
        record_of: the governor's record of a row.
    """

    def __init__(self, batcher: Batcher, record_of: Callable[[SimRow], RowRecord]) -> None:
        self._batcher = batcher
        self._record_of = record_of
        self._next = 0

    def read(self) -> QueueTable:
        """The first ``MAX_QUEUED`` requests, the one in the middle of its prefill before all."""
        batcher = self._batcher
        chunk = batcher.chunked
        rows = list(itertools.islice(batcher.waiting, MAX_QUEUED - (chunk is not None)))
        missing = self._missing_tokens(rows)
        flags = [0] * len(rows)
        if chunk is not None:
            rows.insert(0, chunk)
            missing.insert(0, batcher.reserved_tokens)
            flags.insert(0, _STARTED)
        return QueueTable(
            [self._record_of(row) for row in rows],
            flags,
            missing,
            [row.output_tokens for row in rows],
        )

    def _missing_tokens(self, rows: list[SimRow]) -> list[int]:
        """Look up whoever is new, those whose turn is next, and some of the others in turns."""
        begin = self._next if LOOKED_UP <= self._next < len(rows) else LOOKED_UP
        self._next = begin + LOOKED_UP
        for row in rows[:LOOKED_UP]:
            self._look_up(row)
        for row in rows[begin : self._next]:
            self._look_up(row)
        missing = [row.missing_tokens for row in rows]
        if UNKNOWN in missing:
            for index, tokens in enumerate(missing):
                if tokens == UNKNOWN:
                    missing[index] = self._look_up(rows[index])
        return missing

    def _look_up(self, row: SimRow) -> int:
        row.missing_tokens = row.length - self._batcher.kv.match(row)[1]
        return row.missing_tokens
