"""Bounded reading of files that somebody else wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from governor_workloads.errors import WorkloadError

T = TypeVar("T")

MAX_JSON_BYTES = 1 << 20


def read_json(path: Path, of: Callable[[object], T]) -> T:
    """What ``of`` makes of a JSON file of at most 1 MiB.

    Raises:
        WorkloadError: the file cannot be read, is too large or no JSON, an object in it has one
            key twice, or ``of`` refuses it.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise WorkloadError(f"{path}: {error.strerror or error}") from None
    if len(data) > MAX_JSON_BYTES:
        raise WorkloadError(f"{path}: larger than {MAX_JSON_BYTES} bytes; give a smaller file")
    try:
        decoded = msgspec.json.decode(data)
        _refuse_keys_set_twice(data.decode())
        return of(decoded)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, WorkloadError) as error:
        raise WorkloadError(f"{path}: {error}") from None


def _refuse_keys_set_twice(text: str) -> None:
    """One of two values would be lost, and nobody would know which."""

    def check(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                written = re.compile(re.escape(json.dumps(key, ensure_ascii=False)) + r"\s*:")
                starts = (match.start() for match in written.finditer(text))
                lines = ", ".join(str(text.count("\n", 0, start) + 1) for start in starts)
                raise WorkloadError(
                    f"{key!r} is set twice in one object (it is written in lines {lines}); keep one"
                )
            seen.add(key)

    json.loads(text, object_pairs_hook=check)


def bounded_lines(path: Path, max_bytes: int) -> Iterator[str]:
    """The lines of a text file, without their ends, one in memory at a time.

    Raises:
        WorkloadError: the file cannot be read, is not UTF-8, or a line exceeds ``max_bytes``.
    """
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(max_bytes + 1):
                number += 1
                if len(line) > max_bytes:
                    raise WorkloadError(
                        f"{path}, line {number}: longer than {max_bytes} bytes; this is no trace"
                    )
                yield line.decode().rstrip("\r\n")
    except OSError as error:
        raise WorkloadError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise WorkloadError(f"{path}, line {number}: not UTF-8; unpack the trace first") from None
