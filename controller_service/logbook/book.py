"""The decision log of one controller."""

from __future__ import annotations

import logging
import secrets
import time
from pathlib import Path
from queue import SimpleQueue

import msgspec
from governor_protos.messages import Hello, RequestEnd

from controller_service.logbook.buffers import Buffer, Recorder, text_index
from controller_service.logbook.origin import Origin
from controller_service.logbook.schema import REQUESTS, STEPS
from controller_service.logbook.shelf import Shelf
from controller_service.logbook.writer import Writer
from controller_service.records import StepRecord

logger = logging.getLogger(__name__)

BUFFERS = 4
FLUSH_AFTER_S = 5.0
CLOSE_WITHIN_S = 10.0
EMBEDDED_CLOSE_WITHIN_S = 1.5
"""A launcher gives its embedded controller two seconds to end."""

_UNDECIDED = (0,) * 15


class LogHealth(msgspec.Struct, frozen=True):
    """What the log tells of itself."""

    folder: str
    written: dict[str, int]
    """Records in files, by table."""
    dropped: dict[str, int]
    """Records that are not, by reason: ``full`` (no buffer was free), ``unwritable`` (the disk),
    ``invalid`` (a value that does not fit its column)."""
    files: int
    bytes: int
    deleted_files: int
    """Files deleted to stay within bounds."""
    write_errors: int
    error: str
    """Why the last attempt to write failed; empty when it did not."""


class Logbook:
    """Takes records on the loop's thread, writes them on another."""

    def __init__(
        self,
        folder: Path,
        max_bytes: int,
        buffer_rows: int,
        governor_version: str,
        buffers: int = BUFFERS,
    ) -> None:
        """
        Raises:
            LogFolderError: the folder cannot be used.
        """
        self.folder = folder
        self._version = governor_version
        full: SimpleQueue[Buffer | None] = SimpleQueue()
        self._recorders = {
            table: Recorder(table, buffer_rows, buffers, full) for table in (STEPS, REQUESTS)
        }
        run = time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + "-" + secrets.token_hex(3)
        self._writer = Writer(Shelf(folder, max_bytes, run), full, self._recorders)
        self._invalid = 0

    def start(self) -> None:
        """Start writing."""
        self._writer.start()

    def open(self, hello: Hello) -> EngineLog:
        """The log of one start of an engine."""
        return EngineLog(self, Origin.of(hello, self._version))

    def tick(self, now_s: float) -> None:
        """Once a second or so: hand over what has waited long enough."""
        for recorder in self._recorders.values():
            recorder.hand_over_older(now_s - FLUSH_AFTER_S)

    def close(self, within_s: float = CLOSE_WITHIN_S) -> None:
        """Write what there is, and end; gives up after ``within_s``."""
        for recorder in self._recorders.values():
            recorder.hand_over()
        if not self._writer.finish(within_s):
            logger.warning("decision log: the disk is too slow, the last records are lost")

    def health(self) -> LogHealth:
        """Counts as of now; records still in a buffer are neither written nor dropped."""
        writer, recorders = self._writer, self._recorders.values()
        return LogHealth(
            folder=str(self.folder),
            written={table: writer.written[table] for table in self._recorders},
            dropped={
                "full": sum(recorder.dropped for recorder in recorders),
                "unwritable": writer.lost,
                "invalid": self._invalid,
            },
            files=writer.shelf.files,
            bytes=writer.shelf.bytes,
            deleted_files=writer.shelf.deleted,
            write_errors=writer.errors,
            error=writer.error,
        )

    def add_step(self, origin: Origin, record: StepRecord, now_s: float) -> None:
        recorder = self._recorders[STEPS]
        buffer = recorder.room()
        if buffer is None:
            return
        try:
            recorder.add(buffer, origin, now_s, _step_values(buffer, record))
        except (OverflowError, ValueError, TypeError):
            self._invalid += 1  # a predictor or policy from elsewhere: its step runs all the same

    def add_end(self, origin: Origin, end: RequestEnd, now_s: float) -> None:
        recorder = self._recorders[REQUESTS]
        buffer = recorder.room()
        if buffer is None:
            return
        values = (
            end.request_id,
            end.group_id,
            end.prompt_tokens,
            end.output_tokens,
            end.max_new_tokens,
            end.reason,
            end.age_s,
            end.draft_tokens,
            end.accepted_tokens,
        )
        recorder.add(buffer, origin, now_s, values)


class EngineLog:
    """One engine's end of a :class:`Logbook`."""

    def __init__(self, book: Logbook, origin: Origin) -> None:
        self._book = book
        self._origin = origin

    def step(self, record: StepRecord, now_s: float) -> None:
        """A step has finished. Some 3 us; never waits, never fails."""
        self._book.add_step(self._origin, record, now_s)

    def end(self, end: RequestEnd, now_s: float) -> None:
        """A row has left the engine."""
        self._book.add_end(self._origin, end, now_s)


def _step_values(buffer: Buffer, record: StepRecord) -> tuple[float | int, ...]:
    """In the order of the table's columns after ``time``."""
    decision = record.decision
    measured = (
        record.step,
        record.kind,
        record.outcome,
        record.rows,
        record.context_tokens,
        record.prefill_tokens,
        record.draft_tokens,
        record.parked_rows,
        record.latency_s,
        text_index(buffer, record.predictor),
        record.predictor_version,
        text_index(buffer, record.model_id),
        record.expected_s,
        record.expected_p90_s,
    )
    if decision is None:
        return (*measured, *_UNDECIDED)
    return (
        *measured,
        True,
        text_index(buffer, decision.policy),
        decision.rows,
        decision.mandatory_rows,
        decision.extra_rows,
        decision.parked_rows,
        decision.predicted_step_s,
        decision.baseline_step_s,
        decision.budget_s,
        decision.slack_s,
        decision.predictor_version,
        decision.kv_used_tokens,
        decision.kv_total_tokens,
        decision.waiting_requests,
        decision.waiting_prefill_tokens,
    )
