"""How a target says that a promise is broken, and where its files lie."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

LONGEST_ERROR = 10_000
"""Characters. An error names what is wrong, and does not repeat all of it."""


class Broken(AssertionError):
    """A promise that does not hold."""


def expect(holds: bool, promise: str) -> None:
    if not holds:
        raise Broken(promise)


@cache
def folder() -> Path:
    """A folder for files to be read; goes with the process."""
    made = tempfile.TemporaryDirectory(prefix="governor-fuzz-")
    folder.kept = made
    return Path(made.name)


def placed(name: str, data: bytes) -> Path:
    """``data`` as a file that only its owner may read."""
    path = folder() / name
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def check_error(error: Exception, path: Path) -> None:
    expect(str(path) in str(error), f"does not name the file: {error}")
    expect(len(str(error)) < LONGEST_ERROR, "an error as long as what it is about")
