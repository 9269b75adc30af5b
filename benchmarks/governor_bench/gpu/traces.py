"""Torch's traces of a scheduler: reading, bounded."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import msgspec

from governor_bench.gpu.results import ResultError

MAX_BYTES = 384 << 20
"""Of a trace, unpacked."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event of a trace. Of all the fields that there are, these are of interest."""

    name: str = ""
    cat: str = ""
    ph: str = ""
    ts: float = 0.0
    """Start, in us."""
    dur: float = 0.0
    """In us."""
    tid: int | str = 0
    pid: int | str = 0


class _TraceFile(msgspec.Struct, frozen=True):
    traceEvents: list[Event]


def read_trace(path: Path) -> list[Event]:
    """All events that have a duration.

    Raises:
        ResultError: the file is no trace, damaged, or larger than is read.
    """
    try:
        with gzip.open(path) as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ResultError(f"{path}: no readable .gz file: {error}") from None
    if len(data) > MAX_BYTES:
        raise ResultError(f"{path}: larger than {MAX_BYTES} bytes unpacked; trace fewer steps")
    try:
        events = msgspec.json.decode(data, type=_TraceFile).traceEvents
    except msgspec.DecodeError as error:
        raise ResultError(f"{path}: no trace of torch's profiler: {error}") from None
    return [event for event in events if event.ph == "X"]
