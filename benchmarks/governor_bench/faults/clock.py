"""A wall clock that the bench sets for the processes that it starts."""

from __future__ import annotations

import struct
from pathlib import Path

from governor_bench.faults import shifted

_DOUBLE = struct.Struct("<d")
_COUNT = struct.Struct("<q")


class WallClock:
    """Offset of ``time.time`` in every process started with :attr:`environment`.

    Args:
        file: where the offset is kept; next to it each process notes the jumps that it saw.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        file.write_bytes(_DOUBLE.pack(0.0))

    @property
    def environment(self) -> dict[str, str]:
        folders = [str(folder) for folder in shifted.__path__]
        return {"BENCH_CLOCK": str(self._file), "PYTHONPATH": ":".join(folders)}

    def jump_to(self, offset_s: float) -> None:
        """From now on the clock is off by so much."""
        with self._file.open("r+b") as file:  # in place: the processes have it mapped
            file.write(_DOUBLE.pack(offset_s))

    def seen(self) -> int:
        """Jumps seen so far, by the process that saw most of them."""
        notes = self._file.parent.glob(f"{self._file.name}.*")
        counts = [note.read_bytes() for note in notes]
        return max((_COUNT.unpack(c)[0] for c in counts if len(c) == _COUNT.size), default=0)
