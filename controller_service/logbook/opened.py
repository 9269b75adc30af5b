"""One log file, opened and checked: whole, ours, of this version, and not too large."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from controller_service.logbook.origin import NotALog, Origin, read_origin
from controller_service.logbook.schema import arrow_schema

MAX_FILE_BYTES = 256 << 20
MAX_FILE_ROWS = 10_000_000


class LogFile(msgspec.Struct, frozen=True):
    """One file of a log that can be read: its footer is whole and of this version."""

    path: str
    origin: Origin
    rows: int
    size: int
    """Bytes."""


class OpenLog:
    """One file, opened and checked, within a ``with``."""

    def __init__(self, path: str, table: str) -> None:
        self._path = path
        self._table = table

    def __enter__(self) -> OpenLog:
        import pyarrow.parquet as pq  # noqa: PLC0415 - heavy, and only readers of logs need it
        from fsspec.core import url_to_fs  # noqa: PLC0415

        fs, path = url_to_fs(self._path)
        size = int(fs.size(path) or 0)
        if size > MAX_FILE_BYTES:
            raise NotALog(f"larger than {MAX_FILE_BYTES >> 20} MiB")
        self._handle = fs.open(path, "rb")
        try:
            self._parquet = pq.ParquetFile(self._handle, page_checksum_verification=True)
            metadata = self._parquet.metadata
            origin = read_origin(metadata.metadata)
            if origin.table != self._table:
                raise NotALog(f"it holds {origin.table}, not {self._table}")
            if metadata.num_rows > MAX_FILE_ROWS:
                raise NotALog(f"it claims more than {MAX_FILE_ROWS} rows")
            self._check_columns()
        except BaseException:
            self._handle.close()
            raise
        self.file = LogFile(self._path, origin, metadata.num_rows, size)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()

    def batches(self, columns: list[str]) -> Iterator[Any]:
        """Row group by row group, as Arrow tables of ``columns``."""
        for group in range(self._parquet.num_row_groups):
            yield self._parquet.read_row_group(group, columns=columns, use_threads=False)

    def _check_columns(self) -> None:
        found = self._parquet.schema_arrow
        for field in arrow_schema(self._table):
            if field.name not in found.names or found.field(field.name).type != field.type:
                raise NotALog(f"its column {field.name!r} is missing or of another type")
