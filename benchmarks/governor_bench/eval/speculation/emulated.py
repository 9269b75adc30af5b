"""Tier E of ``governor eval speculation``: runs the plan, and the simulator beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from rich.progress import Progress

from governor_bench.envelope import Stopwatch, envelope
from governor_bench.eval.pool import run_all
from governor_bench.eval.speculation import figures, plan
from governor_bench.eval.speculation.plan import TABLE, Contender, Entries
from governor_bench.eval.speculation.rig import SpeculationRig, speculation_rig
from governor_bench.eval.speculation.run import pairs_of, settings_of
from governor_bench.eval.speculation.setting import EMULATED, Outcome, Setting, run, workload_of
from governor_bench.eval.tier_e import Repeats, error_pct, sum_up

NO_TREES = "The emulated engine drafts chains alone; trees are compared in the simulator."


def evaluate_emulated(
    seeds: Sequence[int], scale: float, progress: Progress, *, quick: bool
) -> dict[str, Any]:
    """Tier E: all on one engine, whose controller changes the policy between runs.

    Args:
        scale: stretches every duration alike, so that a slow host can show a fast GPU.

    Raises:
        RunFailed: a run was not served.
    """
    stopwatch = Stopwatch()
    repeats = Repeats()
    seeds = list(seeds[:1] if quick else seeds)
    grid = plan.emulated(seeds, plan.ON_EMULATED, quick=quick)
    cells = len({(setting.load, setting.level, setting.other_level) for _, setting in grid})
    runs = len(grid) + cells * len(seeds)
    task = progress.add_task("tier E", total=runs)

    def stage(text: str) -> None:
        progress.update(task, description=text)

    def measured(rig: SpeculationRig, entries: Entries) -> list[Outcome]:
        outcomes = []
        for contender, setting in entries:
            stage(f"{contender.name} at {setting.load} users, acceptance {setting.level:g}")
            outcomes.append(repeats.run(rig.run, setting))
            progress.advance(task)
        return outcomes

    with speculation_rig(grid[0][1], scale, stage) as rig:
        stage("training the predictor")
        rig.train(_one_of_each_load(grid))
        of_grid = measured(rig, grid)
        table = figures.tuned_table(figures.cells_of(pairs_of(grid, of_grid)))
        tuned = plan.emulated(seeds, [Contender(TABLE, table.text(), EMULATED)], quick=quick)
        of_tuned = measured(rig, tuned)
    entries, outcomes = [*grid, *tuned], [*of_grid, *of_tuned]
    simulated = run_all(run, settings_of(entries), progress, what="simulating the same")
    found = figures.cells_of(pairs_of(entries, outcomes))
    return {
        **figures.headline(found, []),
        "tree_vs_local_note": NO_TREES,
        "batch_table": table.text(),
        "cells": msgspec.to_builtins(found),
        "simulator_error": simulator_error(
            pairs_of(entries, outcomes), pairs_of(entries, simulated)
        ),
        "workload": workload_of(grid[0][1]).description,
        "hosts": repeats.hosts(outcomes, scale),
        **envelope(
            tier="E",
            seeds=seeds,
            arguments={"quick": quick, "scale": scale, "runs": len(outcomes)},
            stopwatch=stopwatch,
        ),
    }


def simulator_error(
    emulated: Sequence[tuple[Contender, Outcome]], simulated: Sequence[tuple[Contender, Outcome]]
) -> dict[str, Any]:
    """S against E in tokens per second, in per cent; above 0: the simulator promises more."""
    errors: dict[tuple[int, float, float | None], dict[str, float]] = {}
    for cell_e, cell_s in zip(figures.cells_of(emulated), figures.cells_of(simulated), strict=True):
        place = (cell_e.load, cell_e.level, cell_e.other_level)
        errors[place] = {
            e.name: error_pct(s.tokens_per_s, e.tokens_per_s)
            for e, s in zip(cell_e.figures, cell_s.figures, strict=True)
        }
    return {
        **sum_up([error for found in errors.values() for error in found.values()]),
        "cells": [
            {"load": load, "level": level, "other_level": other, "error_pct": found}
            for (load, level, other), found in errors.items()
        ],
    }


def _one_of_each_load(entries: Entries) -> list[Setting]:
    return list({setting.load: setting for _, setting in entries}.values())
