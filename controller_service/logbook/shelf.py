"""The log's files on disk: each complete or absent, merged when there are many, bounded in total.

A file is written under a temporary name, synced and renamed, so a crash leaves whole files and at
most one leftover, which the next start removes. Small files are merged into larger ones; what was
merged stays for ``GRACE_S``, so that a reader in the middle of it finishes, and is not read again
by one that starts meanwhile, because names tell (see :mod:`.names`).

One process at a time writes to a folder: a lock file sees to it. Not thread-safe.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from controller_service.logbook.merging import Unmergeable, merge_files, write_file
from controller_service.logbook.names import TEMPORARY, PartName, covered, parse_name
from controller_service.logbook.origin import Origin
from controller_service.logbook.schema import TABLES

logger = logging.getLogger(__name__)

LOCK = ".lock"
MERGE_FILES = 64
"""Small files of one start of an engine that are merged together."""
MERGE_IDLE_S = 600.0
"""Fewer are merged once none has come for this long."""
GRACE_S = 60.0
ROTATE_BYTES = 8 << 20
"""About what a file grows to."""
MOST_FILES = 20_000


class LogFolderError(ValueError):
    """The folder cannot be written to, or another controller writes there; names the remedy."""


class Held:
    """A file on the shelf."""

    __slots__ = ("merged_s", "part", "path", "size", "sound", "written_s")

    def __init__(self, path: Path, part: PartName, size: int, written_s: float) -> None:
        self.path, self.part, self.size, self.written_s = path, part, size, written_s
        self.merged_s: float | None = None
        """When another file took over its rows."""
        self.sound = True
        """False once it could not be read: it is left as it is, and never merged."""


class Shelf:
    """The files below one folder. Times are seconds since 1970, given by the caller."""

    def __init__(self, folder: Path, max_bytes: int, run: str) -> None:
        """
        Args:
            run: name of this start of the controller, as :mod:`.names` has it.

        Raises:
            LogFolderError: see there.
        """
        self._folder = folder
        self._run = run
        self._rotate_bytes = min(ROTATE_BYTES, max_bytes // 8)
        # Room for what is being written while the oldest is still there.
        self._keep_bytes = max_bytes - 2 * self._rotate_bytes
        self._held: dict[Path, Held] = {}
        self._next = 1
        self.bytes = 0
        self.deleted = 0
        """Files deleted to stay within bounds."""
        self._lock = _claim(folder)
        self._take_stock()

    @property
    def files(self) -> int:
        return len(self._held)

    def close(self) -> None:
        os.close(self._lock)

    def put(self, table: str, origin: Origin, rows: pa.Table, now_s: float) -> None:
        """Add a file with ``rows``.

        Raises:
            OSError: it could not be written; nothing of it is left.
        """
        part = PartName(self._run, origin.tag, self._next, self._next)
        path = self._folder / table / origin.folder / str(part)
        self._next += 1
        write_file(path, rows.schema.with_metadata(origin.metadata(table)), iter([rows]))
        self._hold(path, part, now_s)
        self._stay_within_bounds()

    def keep_house(self, now_s: float) -> bool:
        """Merge one group of small files, forget merged ones, delete the oldest.

        Returns:
            Whether there may be more to merge.

        Raises:
            OSError: a merged file could not be written.
        """
        for held in list(self._held.values()):
            if held.merged_s is not None and now_s - held.merged_s >= GRACE_S:
                self._drop(held)
        group = self._next_group(now_s)
        if group:
            self._merge(group, now_s)
        self._stay_within_bounds()
        return bool(group)

    def _take_stock(self) -> None:
        found: list[tuple[Path, PartName, os.stat_result]] = []
        for path in self._ours():
            part = parse_name(path.name)
            if part is None:
                if path.name.endswith(TEMPORARY):
                    path.unlink(missing_ok=True)
                continue
            found.append((path, part, path.stat()))
        for path, part, facts in found:
            self._held[path] = Held(path, part, facts.st_size, facts.st_mtime)
            self.bytes += facts.st_size
        for twice in covered(str(path) for path in self._held):
            self._drop(self._held[Path(twice)])
        self._stay_within_bounds()

    def _ours(self) -> Iterator[Path]:
        for table in TABLES:
            for folder in sorted((self._folder / table).glob("engine=*")):
                if folder.is_symlink() or not folder.is_dir():
                    continue
                for path in folder.iterdir():
                    if not path.is_symlink() and path.is_file():
                        yield path

    def _next_group(self, now_s: float) -> list[Held]:
        """Neighbours to merge: many, or some that nothing is added to any more."""
        series: dict[tuple[Path, str, str], list[Held]] = {}
        for held in self._held.values():
            if held.merged_s is None:
                key = (held.path.parent, held.part.run, held.part.tag)
                series.setdefault(key, []).append(held)
        for (_, run, _), files in series.items():
            for stretch in self._stretches(files):
                ended = run != self._run or now_s - stretch[-1].written_s >= MERGE_IDLE_S
                if len(stretch) >= (2 if ended else MERGE_FILES):
                    return stretch
        return []

    def _stretches(self, files: list[Held]) -> Iterator[list[Held]]:
        """Runs of small neighbours that fit in one file together."""
        stretch: list[Held] = []
        size = 0
        for held in sorted(files, key=lambda held: held.part):
            fits = size + held.size <= self._rotate_bytes and len(stretch) < MERGE_FILES
            small = held.sound and held.size < self._rotate_bytes // 2
            if stretch and not (small and fits):
                yield stretch
                stretch, size = [], 0
            if small:
                stretch.append(held)
                size += held.size
        if stretch:
            yield stretch

    def _merge(self, group: list[Held], now_s: float) -> None:
        first, last = group[0].part, group[-1].part
        part = PartName(first.run, first.tag, first.first, last.last)
        path = group[0].path.parent / str(part)
        try:
            merge_files([held.path for held in group], path)
        except Unmergeable as error:
            logger.warning("decision log: %s cannot be read and is left alone: %s", *error.args)
            self._held[error.path].sound = False
            return
        self._hold(path, part, max(held.written_s for held in group))
        for held in group:
            held.merged_s = now_s

    def _hold(self, path: Path, part: PartName, written_s: float) -> None:
        size = path.stat().st_size
        self._held[path] = Held(path, part, size, written_s)
        self.bytes += size

    def _stay_within_bounds(self) -> None:
        if self.bytes <= self._keep_bytes and len(self._held) <= MOST_FILES:
            return
        # Those whose rows another file holds first, then the oldest.
        order = sorted(
            self._held.values(), key=lambda held: (held.merged_s is None, held.written_s, held.part)
        )
        for held in order:
            if self.bytes <= self._keep_bytes and len(self._held) <= MOST_FILES:
                return
            self.deleted += held.merged_s is None
            self._drop(held)

    def _drop(self, held: Held) -> None:
        try:
            held.path.unlink(missing_ok=True)
        except OSError as error:
            # Forgotten all the same, or every call would try again; the next start finds it.
            logger.warning("decision log: %s cannot be deleted: %s", held.path, error.strerror)
        del self._held[held.path]
        self.bytes -= held.size
        with contextlib.suppress(OSError):  # not empty, most of the time
            held.path.parent.rmdir()


def _claim(folder: Path) -> Any:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LogFolderError(
            f"log_dir {folder}: {error.strerror}; name a folder that this user can write to"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise LogFolderError(
            f"log_dir {folder}: another controller writes its log there; give each its own folder"
        ) from error
    return lock
