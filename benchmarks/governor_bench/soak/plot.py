"""Memory, open files and late decisions over a soak."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from governor_bench.eval.drawing import plt, save
from governor_bench.soak.watch import Reading

MIB = 2**20


def plot(readings: Sequence[Reading], warm_up: float, path: Path) -> Path:
    """
    Args:
        warm_up: share of the run before anything is judged.
    """
    figure, (memory, files, late) = plt.subplots(3, 1, figsize=(8, 8), sharex=True)
    minutes = [one.at_s / 60 for one in readings]
    for side in ("controller", "scheduler"):
        rss = [getattr(one, f"{side}_rss") / MIB for one in readings]
        settled = rss[int(len(rss) * warm_up)]
        memory.plot(minutes, [100 * (value / settled - 1) for value in rss], label=side, lw=1)
        files.plot(minutes, [getattr(one, f"{side}_files") for one in readings], label=side, lw=1)
    shares = [
        100 * (b.late_steps - a.late_steps) / max(1, b.governed_steps - a.governed_steps)
        for a, b in itertools.pairwise(readings)
    ]
    late.plot(minutes[1:], shares, lw=1)
    for axes, label in (
        (memory, "resident memory against\nthe end of warm-up, %"),
        (files, "open files"),
        (late, "late decisions, % of steps"),
    ):
        axes.set_ylabel(label)
        axes.axvspan(0, minutes[-1] * warm_up, color="0.92", lw=0)
        axes.grid(alpha=0.3)
    memory.legend(fontsize=8)
    files.legend(fontsize=8)
    memory.set_title("shaded: warm-up")
    late.set_xlabel("minutes")
    path.parent.mkdir(parents=True, exist_ok=True)
    return save(figure, path)
