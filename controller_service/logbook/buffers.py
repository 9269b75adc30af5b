"""Where the controller's loop leaves a record: preallocated rows, handed over whole.

The loop's thread alone fills buffers, the writer's thread alone empties them; what is handed over
either way goes through a queue, so nothing is locked. When every buffer is with the writer, a
record is dropped and counted. The loop never waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from controller_service.logbook.origin import Origin
from controller_service.logbook.schema import buffer_dtype

MAX_BUFFER_ROWS = 20_000
"""A row adds up to three texts, and 16 bits must tell those of a buffer apart."""


class Buffer:
    """Rows of one table, and the texts and origins that they point to."""

    def __init__(self, table: str, rows: int) -> None:
        self.table = table
        self.rows = np.zeros(rows, buffer_dtype(table))
        self.used = 0
        self.first_s = 0.0
        """When its first row came, by the clock of :meth:`Recorder.add`."""
        self.texts: dict[str, int] = {}
        self.origins: dict[Origin, int] = {}

    def clear(self) -> None:
        self.used = 0
        self.texts.clear()
        self.origins.clear()


class Recorder:
    """One table's end on the loop."""

    def __init__(self, table: str, rows: int, buffers: int, full: SimpleQueue[Any]) -> None:
        """
        Args:
            rows: rows of a buffer.
            buffers: how many there are, the one being filled included.
            full: where buffers go.
        """
        self._full = full
        self._spare: SimpleQueue[Buffer] = SimpleQueue()
        self._open = Buffer(table, rows)
        self._has_open = True
        for _ in range(buffers - 1):
            self._spare.put(Buffer(table, rows))
        self.offered = 0
        self.dropped = 0
        """Records for which there was no room."""

    def room(self) -> Buffer | None:
        """A buffer with a free row for the record that comes next; ``None`` drops the record."""
        self.offered += 1
        if not self._has_open:
            try:
                self._open = self._spare.get_nowait()
            except Empty:
                self.dropped += 1
                return None
            self._has_open = True
        return self._open

    def add(self, buffer: Buffer, origin: Origin, now_s: float, values: Sequence[Any]) -> None:
        """Put a record into what :meth:`room` gave.

        Args:
            now_s: the controller's monotonic clock.
            values: the table's columns after ``time``, texts as :func:`text_index` gave them.
        """
        used = buffer.used
        if not used:
            buffer.first_s = now_s
        index = buffer.origins.setdefault(origin, len(buffer.origins))
        buffer.rows[used] = (now_s, *values, index)
        buffer.used = used + 1
        if buffer.used == len(buffer.rows):
            self.hand_over()

    def hand_over_older(self, than_s: float) -> None:
        """Hand over a buffer whose first row came before ``than_s``."""
        if self._has_open and self._open.used and self._open.first_s < than_s:
            self.hand_over()

    def hand_over(self) -> None:
        """Give what there is to the writer."""
        if self._has_open and self._open.used:
            self._has_open = False
            self._full.put(self._open)

    def give_back(self, buffer: Buffer) -> None:
        """From the writer: ``buffer`` may be filled again."""
        buffer.clear()
        self._spare.put(buffer)


def text_index(buffer: Buffer, text: str) -> int:
    """The number that stands for ``text`` in this buffer."""
    return buffer.texts.setdefault(text, len(buffer.texts))
