"""``governor eval speculation``: runs the plan, writes the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from rich.progress import Progress

from governor_bench.envelope import Stopwatch, envelope
from governor_bench.eval.pool import run_all
from governor_bench.eval.speculation import figures, plan
from governor_bench.eval.speculation.plan import TABLE, Contender, Entries
from governor_bench.eval.speculation.setting import Outcome, Setting, run, workload_of


def evaluate_simulated(
    seeds: Sequence[int], progress: Progress, *, quick: bool, cluster: str | None = None
) -> dict[str, Any]:
    """Tier S.

    Args:
        cluster: Dask scheduler that simulates instead of this machine.
    """
    stopwatch = Stopwatch()
    seeds = list(seeds[:1] if quick else seeds)
    grid = plan.main(seeds, plan.MAIN, quick=quick)
    trees = plan.trees(seeds, quick=quick)
    targets = plan.targets(seeds, quick=quick)
    outcomes = run_all(run, settings_of([*grid, *trees, *targets]), progress, cluster=cluster)
    of_grid, outcomes = outcomes[: len(grid)], outcomes[len(grid) :]
    of_trees, of_targets = outcomes[: len(trees)], outcomes[len(trees) :]
    table = figures.tuned_table(figures.cells_of(pairs_of(grid, of_grid)))
    tuned = plan.main(seeds, [Contender(TABLE, table.text(), "batch")], quick=quick)
    of_tuned = run_all(
        run, settings_of(tuned), progress, what="simulating the tuned table", cluster=cluster
    )
    main_cells = figures.cells_of([*pairs_of(grid, of_grid), *pairs_of(tuned, of_tuned)])
    tree_cells = figures.cells_of(pairs_of(trees, of_trees))
    everything = [*of_grid, *of_trees, *of_targets, *of_tuned]
    return {
        **figures.headline(main_cells, tree_cells),
        "batch_table": table.text(),
        "cells": msgspec.to_builtins(main_cells),
        "trees": msgspec.to_builtins(tree_cells),
        "targets": msgspec.to_builtins(figures.cells_of(pairs_of(targets, of_targets))),
        "workload": workload_of(grid[0][1]).description,
        "hosts": {"times_real_time": min(item.times_real_time for item in everything)},
        **envelope(
            tier="S",
            seeds=seeds,
            arguments={"quick": quick, "runs": len(everything)},
            stopwatch=stopwatch,
        ),
    }


def settings_of(entries: Entries) -> list[Setting]:
    return [setting for _, setting in entries]


def pairs_of(entries: Entries, outcomes: Sequence[Outcome]) -> list[tuple[Contender, Outcome]]:
    """Each outcome with the contender whose it is."""
    return [(contender, outcome) for (contender, _), outcome in zip(entries, outcomes, strict=True)]
