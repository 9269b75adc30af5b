"""Logs as a table that SQL can filter.

DuckDB runs in memory over the files that :mod:`.reading` found sound. It may open nothing itself:
external access is off and its configuration locked before any text of a user's reaches it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.dataset as ds
from fsspec.core import url_to_fs
from pyarrow.fs import FSSpecHandler, PyFileSystem

from controller_service.logbook.opened import LogFile
from controller_service.logbook.reading import OnDamage, read_files, utc, warn
from controller_service.logbook.schema import (
    ORIGIN_COLUMNS,
    REQUESTS,
    STEPS,
    TABLES,
    arrow_schema,
)

MEMORY_LIMIT = "512MB"
NAME = "log"
"""The table's name, for those who write a subquery in a filter."""


class BadFilter(ValueError):
    """A filter that cannot be used; names it and the remedy."""


class Filter(msgspec.Struct, frozen=True):
    """Which records."""

    table: str = STEPS
    engine: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    """Exclusive."""
    policy: str | None = None
    """With or without its settings."""
    kind: str | None = None
    outcome: str | None = None
    where: str | None = None
    """Any SQL condition on the table's columns."""


class Log:
    """Sound files of one table of the log, ready to be asked."""

    def __init__(self, sources: Sequence[str], wanted: Filter, on_damage: OnDamage = warn) -> None:
        """
        Raises:
            BadSource: see :func:`.reading.list_files`.
            BadFilter: a filter on what the table does not have.
        """
        if wanted.table == REQUESTS:
            for name in ("policy", "kind", "outcome"):
                if getattr(wanted, name) is not None:
                    raise BadFilter(f"--{name}: requests have none; leave it out, or show steps")
        self.wanted = wanted
        self.files: list[LogFile] = list(
            read_files(sources, wanted.table, wanted.engine, on_damage)
        )
        self._connection = _connect(_dataset(self.files, wanted.table))

    @property
    def _steps(self) -> bool:
        return self.wanted.table == STEPS

    def columns(self) -> list[str]:
        return [*ORIGIN_COLUMNS, *(column.name for column in TABLES[self.wanted.table])]

    def rows(self) -> Any:
        """The records that the filter lets through, as a DuckDB relation.

        Raises:
            BadFilter: ``where`` is no condition on these columns.
        """
        relation = self._connection.table(NAME)
        for condition in _conditions(self.wanted):
            relation = relation.filter(condition)
        if self.wanted.where is None:
            return relation
        try:
            return relation.filter(self.wanted.where)
        except duckdb.Error as error:
            raise BadFilter(f"--where {self.wanted.where!r}: {_first_line(error)}") from error

    def pick(self, names: Iterable[str]) -> list[str]:
        """``names``, if they are columns.

        Raises:
            BadFilter: names the nearest.
        """
        known, picked = self.columns(), list(names)
        for name in picked:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
                raise BadFilter(f"--columns: no column {name!r}; did you mean {near[0]!r}?")
        return picked

    def last(self, names: Sequence[str], count: int) -> pa.Table:
        """The newest ``count`` records, oldest first.

        Raises:
            BadFilter: see :meth:`rows` and :meth:`pick`.
        """
        newest = self.rows().order("time DESC, step DESC" if self._steps else "time DESC")
        newest = newest.limit(count)
        table = fetched(newest.project(", ".join(self.pick(names))), self.wanted)
        return table.take(pa.array(range(table.num_rows - 1, -1, -1), pa.int64()))

    def stream(self, names: Sequence[str], batch_rows: int = 65_536) -> pa.RecordBatchReader:
        """All records, batch by batch, file after file: no log is too large for that.

        Raises:
            BadFilter: see :meth:`rows` and :meth:`pick`.
        """
        relation = self.rows().project(", ".join(self.pick(names)))
        try:
            return relation.to_arrow_reader(batch_rows)
        except duckdb.Error as error:
            raise _failed(error, self.wanted) from error

    def ask(self, sql: str) -> list[dict[str, Any]]:
        """Rows of a query of ours over ``wanted``, the filtered records.

        Raises:
            BadFilter: see :meth:`rows`.
        """
        answer: list[dict[str, Any]] = fetched(
            self.rows().query("wanted", sql), self.wanted
        ).to_pylist()
        return answer


def fetched(relation: Any, wanted: Filter) -> pa.Table:
    """What ``relation`` holds, in memory."""
    try:
        return relation.to_arrow_table()
    except duckdb.Error as error:
        raise _failed(error, wanted) from error


def _connect(dataset: ds.Dataset) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(
        ":memory:",
        config={
            "enable_external_access": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "memory_limit": MEMORY_LIMIT,
            "threads": "2",
        },
    )
    connection.register(NAME, dataset)
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _dataset(files: Sequence[LogFile], table: str) -> ds.Dataset:
    """The files as one table; engine and incarnation are constants of a file."""
    schema = arrow_schema(table)
    for name in ORIGIN_COLUMNS:
        schema = schema.append(pa.field(name, pa.string()))
    checked = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    form = ds.ParquetFileFormat(default_fragment_scan_options=checked)
    fragments: list[Any] = []
    systems: dict[Any, Any] = {}
    for file in files:
        fs, path = url_to_fs(file.path)
        system = systems.setdefault(fs, PyFileSystem(FSSpecHandler(fs)))
        constants = (ds.field("engine") == file.origin.engine_id) & (
            ds.field("incarnation") == file.origin.incarnation
        )
        fragments.append(form.make_fragment(path, system, partition_expression=constants))
    if not fragments:
        return ds.dataset(schema.empty_table())
    return ds.FileSystemDataset(fragments, schema, form, next(iter(systems.values())))


def _conditions(wanted: Filter) -> Iterable[Any]:
    for name, value in (("kind", wanted.kind), ("outcome", wanted.outcome)):
        if value is not None:
            yield duckdb.ColumnExpression(name) == duckdb.ConstantExpression(value)
    if wanted.policy is not None:
        base = duckdb.FunctionExpression(
            "split_part",
            duckdb.ColumnExpression("policy"),
            duckdb.ConstantExpression(":"),
            duckdb.ConstantExpression(1),
        )
        exact = duckdb.ColumnExpression("policy") == duckdb.ConstantExpression(wanted.policy)
        yield exact | (base == duckdb.ConstantExpression(wanted.policy))
    time = duckdb.ColumnExpression("time")
    if wanted.since is not None:
        yield time >= _moment(wanted.since)
    if wanted.until is not None:
        yield time < _moment(wanted.until)


def _moment(moment: datetime) -> Any:
    return duckdb.ConstantExpression(utc(moment).isoformat()).cast("TIMESTAMP WITH TIME ZONE")


def _failed(error: duckdb.Error, wanted: Filter) -> BadFilter:
    """An error that only shows as records are read."""
    cause = "" if wanted.where is None else f" (--where {wanted.where!r})"
    return BadFilter(f"the log cannot be asked that{cause}: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:300]
