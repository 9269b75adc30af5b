"""One JSON file a stage. A file is written whole or not at all, and is read strictly."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from governor_bench.gpu.figures import Figures
from governor_bench.gpu.target import FORMAT, Target

MAX_FILE_BYTES = 32 << 20
TARGET_FILE = "target.json"

Text = Annotated[str, Meta(max_length=20_000)]
T = TypeVar("T")


class ResultError(ValueError):
    """A folder or a file in it cannot be used; the message says which and what to do."""


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a result came about."""

    tier: str
    seeds: list[int]
    versions: dict[str, str]
    machine: dict[str, Any]
    arguments: dict[str, Any]
    seconds: float


class StageResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What became of one stage."""

    format: int
    stage: str
    target: Target
    status: Literal["done", "skipped", "failed"]
    envelope: Envelope
    figures: Figures | None = None
    """None unless it is done."""
    reason: Text = ""
    """Why it was skipped, or how it failed."""
    logs: dict[str, Text] = {}
    """Ends of the servers' logs, of a stage that failed."""

    def __post_init__(self) -> None:
        if (self.status == "done") != (self.figures is not None):
            raise ValueError(f"stage {self.stage}: figures belong to a stage that is done")


def claim(folder: Path, target: Target) -> None:
    """Make ``folder`` the place of ``target``'s figures.

    Raises:
        ResultError: it holds another one's, or cannot be written.
    """
    found = read_target(folder)
    if found is None:
        write(folder / TARGET_FILE, target)
    elif found != target:
        raise ResultError(
            f"{folder} holds figures of {_described(found)}, not of {_described(target)}: name "
            "another folder with --out"
        )


def read_target(folder: Path) -> Target | None:
    """Whose figures a folder holds; None if it holds none.

    Raises:
        ResultError: its file is damaged.
    """
    path = folder / TARGET_FILE
    return read(path, Target) if path.exists() else None


def read_result(folder: Path, stage: str) -> StageResult | None:
    """The result of a stage; None if there is none.

    Raises:
        ResultError: the file is damaged, of another version or of another target.
    """
    path = folder / f"{stage}.json"
    if not path.exists():
        return None
    result = read(path, StageResult)
    if result.format != FORMAT or result.stage != stage or result.target != read_target(folder):
        raise ResultError(
            f"{path}: not of this version, stage or target; move it away and measure it again"
        )
    return result


def read(path: Path, kind: type[T]) -> T:
    """
    Raises:
        ResultError: the file is missing, too large or not of that kind.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ResultError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ResultError(f"{path}: larger than {MAX_FILE_BYTES} bytes")
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise ResultError(f"{path}: {error}; move it away and measure it again") from None


def write(path: Path, value: Any) -> None:
    """Write a file whole.

    Raises:
        ResultError: it cannot be written.
    """
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")
        temporary.replace(path)
    except OSError as error:
        raise ResultError(f"{path}: cannot be written: {error.strerror}") from None


def _described(target: Target) -> str:
    more = f" with {' '.join(target.engine_arguments)}" if target.engine_arguments else ""
    return f"model {target.model} on {target.device}{more} (format {target.format})"
