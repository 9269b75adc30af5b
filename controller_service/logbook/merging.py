"""Parquet files, written so that they are complete or absent, and several made into one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from controller_service.logbook.names import TEMPORARY

ROW_GROUP = 65_536


class Unmergeable(ValueError):
    """One of the files cannot be read: ``args`` are its path and why."""

    @property
    def path(self) -> Path:
        path: Path = self.args[0]
        return path


def write_file(path: Path, schema: pa.Schema, tables: Iterator[pa.Table]) -> None:
    """Write ``tables`` one after the other, each a row group, under a temporary name; sync; rename.

    Raises:
        OSError: nothing is left of it.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        with temporary.open("wb") as file:
            with pq.ParquetWriter(
                file, schema, compression="zstd", write_page_checksum=True
            ) as writer:
                for table in tables:
                    writer.write_table(table.cast(schema), row_group_size=ROW_GROUP)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        for unfinished in (temporary, path):
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
        raise


def merge_files(paths: Sequence[Path], into: Path) -> None:
    """The rows of ``paths``, in order, in one new file with the metadata of the first.

    Raises:
        Unmergeable: one of them cannot be read; nothing is written.
        OSError: the new file cannot be written; nothing is left of it.
    """
    with _opened(paths[0]) as first:
        schema = first.schema_arrow
    write_file(into, schema, _in_groups(paths))


def _in_groups(paths: Sequence[Path]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    rows = 0
    for path in paths:
        with _opened(path) as file:
            for group in range(file.num_row_groups):
                try:
                    waiting.append(file.read_row_group(group, use_threads=False))
                except (pa.ArrowException, OSError) as error:
                    raise Unmergeable(path, error) from error
                rows += waiting[-1].num_rows
                if rows >= ROW_GROUP:
                    yield pa.concat_tables(waiting)
                    waiting, rows = [], 0
    if waiting:
        yield pa.concat_tables(waiting)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise Unmergeable(path, error) from error
    with file:
        yield file


def _sync_folder(folder: Path) -> None:
    """Make the new name outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
