"""The thread that turns full buffers into files. Nothing that goes wrong here reaches the loop."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping
from queue import Empty, SimpleQueue

import numpy as np
import pyarrow as pa

from controller_service.logbook.buffers import Buffer, Recorder
from controller_service.logbook.schema import arrow_table
from controller_service.logbook.shelf import Shelf

logger = logging.getLogger(__name__)

FAULTS = (OSError, MemoryError, pa.ArrowException, ValueError)
"""What costs records, or a while without order in the folder, and not the thread."""
HOUSE_EVERY_S = 5.0
HOUSE_PAUSE_S = 60.0
"""... and after it went wrong."""


class Writer:
    """Empties buffers into ``shelf``. Its counts are read by the loop's thread, written by none
    but its own."""

    def __init__(
        self, shelf: Shelf, full: SimpleQueue[Buffer | None], recorders: Mapping[str, Recorder]
    ) -> None:
        self.shelf = shelf
        self.written: Counter[str] = Counter()
        """Records in files, by table."""
        self.lost = 0
        """Records that could not be written."""
        self.errors = 0
        self._writing = _Fault("cannot be written, records are dropped until it can")
        self._housing = _Fault("files cannot be merged or deleted")
        self._house_after_s = 0.0
        self._full = full
        self._recorders = recorders
        self._thread = threading.Thread(target=self._run, name="governor-log", daemon=True)

    @property
    def error(self) -> str:
        """Why the last attempt failed; empty when it did not."""
        return self._writing.error or self._housing.error

    def start(self) -> None:
        self._thread.start()

    def finish(self, within_s: float) -> bool:
        """Write what was handed over, then end. False if that takes longer than ``within_s``."""
        self._full.put(None)
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        # NOTE: no niceness: a thread set aside while it holds the interpreter would stop the loop.
        pa.set_cpu_count(1)
        while True:
            try:
                buffer = self._full.get(timeout=HOUSE_EVERY_S)
            except Empty:
                self._keep_house()
                continue
            if buffer is None:
                self.shelf.close()
                return
            self._write(buffer)
            if self._full.empty():
                self._keep_house()

    def _write(self, buffer: Buffer) -> None:
        now_s = time.time()
        offset_s = now_s - time.monotonic()
        rows, texts = buffer.rows[: buffer.used], list(buffer.texts) or [""]
        for origin, index in buffer.origins.items():
            records = int(np.count_nonzero(rows["origin"] == index))
            if not records:
                continue
            try:
                of_origin = rows[rows["origin"] == index]
                table = arrow_table(buffer.table, of_origin, texts, offset_s)
                self.shelf.put(buffer.table, origin, table, now_s)
            except FAULTS as error:
                self.lost += records
                self.errors += 1
                self._writing.began(error)
            else:
                self.written[buffer.table] += records
                self._writing.ended()
        self._recorders[buffer.table].give_back(buffer)

    def _keep_house(self) -> None:
        if time.monotonic() < self._house_after_s:
            return
        try:
            while self.shelf.keep_house(time.time()) and self._full.empty():
                continue
        except FAULTS as error:
            self.errors += 1
            self._housing.began(error)
            self._house_after_s = time.monotonic() + HOUSE_PAUSE_S
        else:
            self._housing.ended()
            self._house_after_s = time.monotonic() + HOUSE_EVERY_S


class _Fault:
    """Something that goes wrong for a while: told when it begins and when it ends."""

    def __init__(self, what: str) -> None:
        self.error = ""
        self._what = what

    def began(self, error: Exception) -> None:
        """It has gone wrong, maybe again."""
        if not self.error:
            logger.warning("decision log: %s (%s)", self._what, error)
        self.error = str(error) or type(error).__name__

    def ended(self) -> None:
        """It went well."""
        if self.error:
            logger.info("decision log: over: %s", self._what)
        self.error = ""
