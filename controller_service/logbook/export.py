"""Records out of the log, as a file of another kind. Streamed: memory does not grow with them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from controller_service.logbook.names import TEMPORARY

Sink = IO[bytes]


def export(reader: pa.RecordBatchReader, path: str, form: str) -> int:
    """Write all of ``reader`` to ``path`` as ``form``; ``-`` is standard output.

    Args:
        form: one of :data:`FORMS`.

    Returns:
        Records written.

    Raises:
        OSError: it cannot be written; no file is left.
    """
    with _sink(path) as sink:
        return FORMS[form](reader, sink)


@contextlib.contextmanager
def _sink(path: str) -> Iterator[Sink]:
    if path == "-":
        yield sys.stdout.buffer
        return
    whole = Path(path)
    temporary = whole.with_name(whole.name + TEMPORARY)
    try:
        with temporary.open("wb") as file:
            yield file
        temporary.replace(whole)
    except OSError as error:
        error.filename = path  # what the user named
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _parquet(reader: pa.RecordBatchReader, sink: Sink) -> int:
    rows = 0
    with pq.ParquetWriter(sink, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def _csv(reader: pa.RecordBatchReader, sink: Sink) -> int:
    rows = 0
    with pyarrow.csv.CSVWriter(sink, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def _jsonl(reader: pa.RecordBatchReader, sink: Sink) -> int:
    rows = 0
    encoder = msgspec.json.Encoder()
    for batch in reader:
        sink.write(encoder.encode_lines(batch.to_pylist()))
        rows += batch.num_rows
    return rows


FORMS: dict[str, Callable[[pa.RecordBatchReader, Sink], int]] = {
    "parquet": _parquet,
    "csv": _csv,
    "jsonl": _jsonl,
}
"""What each kind of file is written by; a name's ending tells which."""
