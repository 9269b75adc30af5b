"""What a stage is, and what it is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from governor_bench.gpu.figures import Figures
from governor_bench.gpu.results import read_result
from governor_bench.gpu.rig import Rig
from governor_bench.gpu.target import Sizes, Target

SEED = 1


class Skipped(Exception):
    """A stage means nothing here; the message says why."""


class Needs(Exception):
    """Another stage must be done first, or more time is needed; the message says what. The stage is
    left for another run, with what it has saved."""


class Context(NamedTuple):
    """What a stage is given."""

    target: Target
    sizes: Sizes
    folder: Path
    rig: Rig
    tell: Callable[[str], None]
    left_s: Callable[[], float] = lambda: float("inf")
    """Of the budget."""

    def figures_of(self, stage: str) -> Figures:
        """What an earlier stage has found.

        Raises:
            Needs: it is not done.
        """
        result = read_result(self.folder, stage)
        if result is None or result.figures is None:
            raise Needs(f"stage {stage} must be done first")
        return result.figures


class Stage(msgspec.Struct, frozen=True):
    """One stage."""

    name: str
    """Also its file's."""
    about: str
    work_s: Callable[[Sizes], float]
    """What it is expected to take, once its servers run; of one that saves what it has, the least
    that is worth a start."""
    servers: tuple[str, ...]
    """Of ``governed``, ``stock``, ``drafting``."""
    run: Callable[[Context], Figures]

    def expected_s(self, sizes: Sizes, running: frozenset[str] = frozenset()) -> float:
        """What it is expected to take, starts of servers that do not run yet included."""
        starts = sum(name not in running for name in self.servers)
        return self.work_s(sizes) + starts * sizes.start_s
