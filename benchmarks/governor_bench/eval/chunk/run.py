"""``governor eval chunk``: runs the plan, writes the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from rich.progress import Progress

from governor_bench.envelope import Stopwatch, envelope
from governor_bench.eval.chunk import figures, over_time, plan
from governor_bench.eval.chunk.plan import Contender, Entry, Place
from governor_bench.eval.chunk.setting import Outcome, Setting, workload_for
from governor_bench.eval.chunk.simulated import run
from governor_bench.eval.pool import run_all


def evaluate_simulated(
    seeds: Sequence[int], progress: Progress, *, quick: bool, cluster: str | None = None
) -> dict[str, Any]:
    """Tier S.

    Args:
        cluster: Dask scheduler that simulates instead of this machine.
    """
    stopwatch = Stopwatch()
    seeds = list(seeds[:1] if quick else seeds)
    grid, trees = plan.main(seeds, quick=quick), plan.trees(seeds, quick=quick)
    outcomes = run_all(run, settings_of([*grid, *trees]), progress, cluster=cluster)
    of_grid, of_trees = outcomes[: len(grid)], outcomes[len(grid) :]
    cells = figures.cells_of(named(grid, of_grid))
    shown = over_time.settings(seeds[0], quick=quick)
    traces = run_all(
        over_time.trace, list(shown.values()), progress, what="one burst", cluster=cluster
    )
    return {
        **figures.headline(cells),
        "curve": msgspec.to_builtins(cells),
        "trees": msgspec.to_builtins(figures.cells_of(named(trees, of_trees))),
        "over_time": {"share": over_time.SHARE, "runs": dict(zip(shown, traces, strict=True))},
        "workloads": workloads(grid),
        "hosts": {"times_real_time": min(item.times_real_time for item in outcomes)},
        **envelope(
            tier="S",
            seeds=seeds,
            arguments={"quick": quick, "runs": len(set(settings_of([*grid, *trees])))},
            stopwatch=stopwatch,
        ),
    }


def settings_of(entries: Sequence[Entry]) -> list[Setting]:
    return [setting for _, _, setting in entries]


def named(
    entries: Sequence[Entry], outcomes: Sequence[Outcome]
) -> list[tuple[Place, Contender, Outcome]]:
    """Each outcome with its place and the contender whose it is."""
    return [
        (place, contender, outcome)
        for (place, contender, _), outcome in zip(entries, outcomes, strict=True)
    ]


def workloads(entries: Sequence[Entry]) -> dict[str, str]:
    """Each shape in words, at the first load that it is run at."""
    first: dict[str, Setting] = {}
    for place, _, setting in entries:
        first.setdefault(place.shape, setting)
    return {shape: workload_for(setting).description for shape, setting in first.items()}
