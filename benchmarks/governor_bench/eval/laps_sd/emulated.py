"""Tier E of ``governor eval laps-sd``: runs the plan, and the simulator beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from rich.progress import Progress

from governor_bench.envelope import Stopwatch, envelope
from governor_bench.eval.laps_sd import figures, plan
from governor_bench.eval.laps_sd.figures import Cell
from governor_bench.eval.laps_sd.rig import laps_sd_rig
from governor_bench.eval.laps_sd.run import named, settings_of, workloads
from governor_bench.eval.laps_sd.setting import Outcome, Setting
from governor_bench.eval.laps_sd.simulated import run
from governor_bench.eval.pool import run_all
from governor_bench.eval.tier_e import Repeats, error_pct, errors_of

COMPARED = ("mean_s", "p50_s", "p99_s")
"""Figures of S that are held against E's."""


def evaluate_emulated(
    seeds: Sequence[int], scale: float, progress: Progress, *, quick: bool
) -> dict[str, Any]:
    """Tier E: one engine, whose controller changes the policy between runs.

    Args:
        scale: stretches every duration alike, so that a slow host can show a fast GPU.

    Raises:
        RunFailed: a run was not served.
    """
    stopwatch = Stopwatch()
    seeds = list(seeds[:1] if quick else seeds)
    entries = plan.emulated(seeds, quick=quick)
    settings = list(dict.fromkeys(settings_of(entries)))
    repeats = Repeats()
    task = progress.add_task("tier E", total=len(settings))
    measured: dict[Setting, Outcome] = {}

    def stage(text: str) -> None:
        progress.update(task, description=text)

    with laps_sd_rig(settings[0], scale, stage) as rig:
        stage("training the predictor")
        rig.train(list({(one.shape, one.share): one for one in settings}.values()))
        for setting in settings:
            stage(f"{setting.policy}, {setting.shape} at {setting.share:g}")
            measured[setting] = repeats.run(rig.run, setting)
            progress.advance(task)
    outcomes = [measured[setting] for setting in settings_of(entries)]
    simulated = run_all(run, settings_of(entries), progress, what="simulating the same")
    cells = figures.cells_of(named(entries, outcomes))
    return {
        **figures.headline(cells),
        "curve": msgspec.to_builtins(cells),
        "simulator_error": simulator_error(cells, figures.cells_of(named(entries, simulated))),
        "workloads": workloads(entries),
        "hosts": repeats.hosts(outcomes, scale),
        **envelope(
            tier="E",
            seeds=seeds,
            arguments={"quick": quick, "scale": scale, "runs": len(settings)},
            stopwatch=stopwatch,
        ),
    }


def simulator_error(emulated: Sequence[Cell], simulated: Sequence[Cell]) -> dict[str, Any]:
    """S against E in per cent, above 0 where the simulator says more; preemptions per 100 requests
    as a difference."""
    cells: list[dict[str, Any]] = []
    for e_cell, s_cell in zip(emulated, simulated, strict=True):
        errors = {
            e.name: {
                **{name: error_pct(getattr(s, name), getattr(e, name)) for name in COMPARED},
                "preemptions": round(s.preemptions - e.preemptions, 2),
            }
            for e, s in zip(e_cell.figures, s_cell.figures, strict=True)
        }
        cells.append({"shape": e_cell.shape, "share": e_cell.share, "error_pct": errors})
    return errors_of(cells)
