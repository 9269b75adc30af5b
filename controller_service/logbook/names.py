"""What log files are called: ``RUN-TAG-FIRST-LAST.parquet`` in ``TABLE/engine=NAME/``.

RUN is one start of a controller, TAG one start of an engine, FIRST and LAST number the buffers
whose rows the file holds. A merged file covers the numbers of those that it was made from, so that
a crash between the two, or a reader in the middle, counts no row twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

SUFFIX = ".parquet"
TEMPORARY = ".writing"
"""Ends the name of a file that is not complete. Nobody reads one; they are removed at start."""

_NAME = re.compile(r"(\d{8}T\d{6}-[0-9a-f]{6})-([0-9a-f]{12})-(\d{8,12})-(\d{8,12})\.parquet")


class PartName(msgspec.Struct, frozen=True, order=True):
    """A file's name in parts."""

    run: str
    tag: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.run}-{self.tag}-{self.first:08d}-{self.last:08d}{SUFFIX}"

    def covers(self, other: PartName) -> bool:
        """Whether the other file's rows are all in this one."""
        same = (self.run, self.tag) == (other.run, other.tag)
        return same and self != other and self.first <= other.first and other.last <= self.last


def parse_name(name: str) -> PartName | None:
    """``None`` for a file that the log did not name."""
    found = _NAME.fullmatch(name)
    return found and PartName(found[1], found[2], int(found[3]), int(found[4]))


def covered(paths: Iterable[str]) -> set[str]:
    """Those whose rows another file of the same folder holds as well."""
    groups: dict[tuple[str, str, str], dict[PartName, str]] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        part = parse_name(name)
        if part is not None:
            groups.setdefault((folder, part.run, part.tag), {})[part] = path
    return {path for group in groups.values() for path in _covered(group)}


def _covered(group: Mapping[PartName, str]) -> Iterable[str]:
    reached = -1
    # In order of first number, the longest of equals first, a file is covered if an earlier one
    # reaches as far.
    for part in sorted(group, key=lambda part: (part.first, -part.last)):
        if part.last <= reached:
            yield group[part]
        reached = max(reached, part.last)
