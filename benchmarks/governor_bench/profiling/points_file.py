"""Finished points on disk, one a line, so that an interrupted profile goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from controller_service.learning.model import EngineKey
from governor_bench.profiling.build import Measured
from governor_bench.profiling.engine import ProfilingFailed
from governor_bench.profiling.point import Point
from governor_bench.profiling.steps import Step

MAX_FILE_BYTES = 256 << 20
FORMAT = 1


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="profile"):
    """The first line."""

    format: int
    engine: EngineKey


class PolicyLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="policy"):
    """Which policy ran before a run took over, and whether it has been put back."""

    policy: str
    state: Literal["replaced", "restored"]


class PointLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="point"):
    point: Point
    steps: list[Step]
    spent_s: float


_Line = Header | PolicyLine | PointLine


class PointsFile:
    """Appends finished points; reads those of earlier runs.

    Args:
        path: created on the first write.
        engine: whose steps these are.
        fresh: forget what the file holds.

    Raises:
        ProfilingFailed: the file is another engine's, damaged, too large or not to be read. A last
            line that was cut short by a crash is dropped.
    """

    def __init__(self, path: Path, engine: EngineKey, *, fresh: bool) -> None:
        self.path = path
        self.measured: list[Measured] = []
        """Of earlier runs and of this one."""
        self.unrestored_policy = ""
        """A policy that this run has replaced, or an earlier one that was killed."""
        lines, sound_bytes = ([], 0) if fresh else _read(path)
        for line in lines:
            if isinstance(line, Header):
                _check(path, line, engine)
            elif isinstance(line, PolicyLine):
                self.unrestored_policy = line.policy if line.state == "replaced" else ""
            else:
                self.measured.append(Measured(line.point, line.steps, line.spent_s))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.truncate(sound_bytes)
        except OSError as error:
            raise ProfilingFailed(f"{path}: cannot be written: {error.strerror}") from None
        if not lines:
            self._append(Header(FORMAT, engine))

    @property
    def done(self) -> set[str]:
        """Names of the points that need not be measured again."""
        return {item.point.name for item in self.measured}

    def add(self, measured: Measured) -> None:
        """A point is finished; it is on disk when this returns."""
        self._append(PointLine(measured.point, measured.steps, round(measured.spent_s, 3)))
        self.measured.append(measured)

    def policy_replaced(self, policy: str) -> None:
        """The policy that ran is about to be replaced, and owed."""
        self._append(PolicyLine(policy, "replaced"))
        self.unrestored_policy = policy

    def policy_restored(self, policy: str) -> None:
        """It runs again, or someone has set another one."""
        self._append(PolicyLine(policy, "restored"))
        self.unrestored_policy = ""

    def _append(self, line: _Line) -> None:
        try:
            with self.path.open("ab") as file:
                file.write(msgspec.json.encode(line) + b"\n")
        except OSError as error:
            raise ProfilingFailed(f"{self.path}: cannot be written: {error.strerror}") from None


def _read(path: Path) -> tuple[list[_Line], int]:
    """The lines of the file, and how many bytes of it are whole lines."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise ProfilingFailed(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ProfilingFailed(f"{path}: over {MAX_FILE_BYTES} bytes; start again with --fresh")
    whole = data.rfind(b"\n") + 1
    decoder = msgspec.json.Decoder(_Line)
    lines: list[_Line] = []
    for number, text in enumerate(data[:whole].splitlines(), start=1):
        try:
            lines.append(decoder.decode(text))
        except msgspec.DecodeError as error:
            raise ProfilingFailed(
                f"{path}, line {number}: {error}; start again with --fresh, or name another output"
            ) from None
    if lines and not isinstance(lines[0], Header):
        raise ProfilingFailed(f"{path}: does not begin with a profile's header; use --fresh")
    return lines, whole


def _check(path: Path, header: Header, engine: EngineKey) -> None:
    if header.format != FORMAT:
        raise ProfilingFailed(
            f"{path}: format {header.format}, this version writes {FORMAT}; use --fresh"
        )
    for name in EngineKey.__struct_fields__:
        theirs, ours = getattr(header.engine, name), getattr(engine, name)
        if theirs != ours:
            raise ProfilingFailed(
                f"{path} holds points of another engine: {name} is {theirs!r} there and {ours!r} "
                "here; name another output, or start again with --fresh"
            )
