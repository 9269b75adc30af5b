"""Logs back as columns, for fitting: one file at a time, from a folder or an object store.

A source is a folder (searched through), a file, or an fsspec URL of either. Files that another one
covers are left out (see :mod:`.names`). A file that cannot be read is skipped and named to
``on_damage``; by default it is logged as a warning.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from governor_protos.messages import EndReason

from controller_service.learning.model import EngineKey
from controller_service.learning.samples import Samples
from controller_service.logbook.opened import LogFile, OpenLog
from controller_service.logbook.schema import REQUESTS, STEPS
from controller_service.logbook.sources import BadSource, list_files

__all__ = [
    "BadSource",
    "Damage",
    "Ends",
    "LogFile",
    "LogOrigin",
    "OnDamage",
    "list_files",
    "read_ends",
    "read_files",
    "read_samples",
    "utc",
    "warn",
]

logger = logging.getLogger(__name__)

_SAMPLE_COLUMNS = ["rows", "context_tokens", "prefill_tokens", "draft_tokens", "latency_s"]
_KINDS = ("decode", "prefill", "mixed")
_REASONS = {reason.name.lower(): int(reason) for reason in EndReason}


class LogOrigin(msgspec.Struct, frozen=True):
    """Whose steps came out of one file."""

    engine_id: str
    incarnation: str
    engine: EngineKey
    graph_rows: tuple[int, ...]
    path: str
    rows: int
    """Rows in the file, before any filter."""


class Damage(msgspec.Struct, frozen=True):
    """A file that was skipped, and why."""

    path: str
    reason: str


class Ends(msgspec.Struct, frozen=True, eq=False):
    """Rows that have left their engines. Every column has shape ``(n,)``."""

    prompt_tokens: npt.NDArray[np.int64]
    output_tokens: npt.NDArray[np.int64]
    max_new_tokens: npt.NDArray[np.int64]
    reason: npt.NDArray[np.int64]
    """As :class:`governor_protos.messages.EndReason`."""
    age_s: npt.NDArray[np.float64]
    draft_tokens: npt.NDArray[np.int64]
    accepted_tokens: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.reason)


OnDamage = Callable[[Damage], None]


def warn(damage: Damage) -> None:
    """The usual ``on_damage``."""
    logger.warning("log file %s skipped: %s", damage.path, damage.reason)


def read_files(
    sources: Sequence[str],
    table: str = STEPS,
    engine: str | None = None,
    on_damage: OnDamage = warn,
) -> Iterator[LogFile]:
    """The readable files of ``table`` in ``sources``, and what each tells of itself.

    Args:
        engine: only those of this engine.

    Raises:
        BadSource: see :func:`list_files`.
    """
    for path in list_files(sources, table):
        try:
            with OpenLog(path, table) as opened:
                file = opened.file
        except _unreadable() as error:
            on_damage(Damage(path, _reason(error)))
            continue
        if engine in (None, file.origin.engine_id):
            yield file


def read_samples(
    sources: Sequence[str],
    engine: str | None = None,
    since: datetime | None = None,
    on_damage: OnDamage = warn,
) -> Iterator[tuple[LogOrigin, Samples]]:
    """The steps that teach something, one item a file; the memory of one file at a time.

    Steps without a latency, and prefill steps that do not say how much they prefilled, are left
    out, as they are by a running controller.

    Args:
        engine: only this engine's; default all.
        since: only steps reported at or after this moment; without a time zone it is UTC.

    Raises:
        BadSource: see :func:`list_files`.
    """
    for path in list_files(sources, STEPS):
        try:
            with OpenLog(path, STEPS) as opened:
                if engine not in (None, opened.file.origin.engine_id):
                    continue
                samples = _samples(opened, since)
                origin = _log_origin(opened.file)
        except _unreadable() as error:
            on_damage(Damage(path, _reason(error)))
            continue
        yield origin, samples


def read_ends(
    sources: Sequence[str], engine: str | None = None, on_damage: OnDamage = warn
) -> Ends:
    """Every request end in ``sources``; about 56 bytes of memory each.

    Raises:
        BadSource: see :func:`list_files`.
    """
    names = list(Ends.__struct_fields__)
    parts: list[list[npt.NDArray[Any]]] = []
    for path in list_files(sources, REQUESTS):
        try:
            with OpenLog(path, REQUESTS) as opened:
                if engine not in (None, opened.file.origin.engine_id):
                    continue
                columns = list(map(_ends, opened.batches(names)))
        except _unreadable() as error:
            on_damage(Damage(path, _reason(error)))
            continue
        parts.extend(columns)
    empty = [np.zeros(0, np.float64 if name == "age_s" else np.int64) for name in names]
    return Ends(*(np.concatenate(column) for column in zip(empty, *parts, strict=True)))


def _samples(opened: OpenLog, since: datetime | None) -> Samples:
    import pyarrow.compute as pc  # noqa: PLC0415
    from pyarrow import scalar, timestamp  # noqa: PLC0415

    parts = []
    for batch in opened.batches(["time", "kind", *_SAMPLE_COLUMNS]):
        known = pc.is_in(batch["kind"], value_set=_strings(_KINDS))
        work = pc.or_(pc.equal(batch["kind"], "decode"), pc.greater(batch["prefill_tokens"], 0))
        wanted = pc.and_(known, work)
        if since is not None:
            from_us = scalar(int(utc(since).timestamp() * 1e6)).cast(timestamp("us", "UTC"))
            wanted = pc.and_(wanted, pc.greater_equal(batch["time"], from_us))
        kept = batch.filter(wanted)
        parts.append(
            Samples(*(kept[name].to_numpy().astype(np.float64) for name in _SAMPLE_COLUMNS))
        )
    return Samples.join(parts).usable()


def _ends(batch: Any) -> list[npt.NDArray[Any]]:
    aborted = int(EndReason.ABORTED)
    columns: list[npt.NDArray[Any]] = []
    for name in Ends.__struct_fields__:
        if name == "reason":
            words = batch[name].to_pylist()
            columns.append(np.array([_REASONS.get(word, aborted) for word in words], np.int64))
        else:
            kind = np.float64 if name == "age_s" else np.int64
            columns.append(batch[name].to_numpy().astype(kind))
    return columns


def utc(moment: datetime) -> datetime:
    """``moment`` with a time zone: UTC unless it has one."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _log_origin(file: LogFile) -> LogOrigin:
    origin = file.origin
    return LogOrigin(
        origin.engine_id,
        origin.incarnation,
        origin.engine,
        origin.graph_rows,
        file.path,
        file.rows,
    )


def _strings(values: Sequence[str]) -> Any:
    import pyarrow as pa  # noqa: PLC0415

    return pa.array(values, pa.string())


def _unreadable() -> tuple[type[BaseException], ...]:
    """What reading a damaged file raises."""
    import pyarrow as pa  # noqa: PLC0415

    return (pa.ArrowException, OSError, ValueError, KeyError, IndexError)


def _reason(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text.splitlines()[0][:300]
