"""Tier E of ``governor eval chunk``: runs the plan, and the simulator beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from rich.progress import Progress

from governor_bench.envelope import Stopwatch, envelope
from governor_bench.eval.chunk import figures, plan
from governor_bench.eval.chunk.figures import Cell
from governor_bench.eval.chunk.rig import chunk_rig
from governor_bench.eval.chunk.run import named, settings_of, workloads
from governor_bench.eval.chunk.setting import Outcome, Setting
from governor_bench.eval.chunk.simulated import run
from governor_bench.eval.pool import run_all
from governor_bench.eval.tier_e import Repeats, error_pct, errors_of

COMPARED = ("tpot_ms", "short_ttft_p50_s", "throughput_tok_s")
"""Figures of S that are held against E's."""


def evaluate_emulated(
    seeds: Sequence[int], scale: float, progress: Progress, *, quick: bool
) -> dict[str, Any]:
    """Tier E: one engine a schedule, whose controller changes the policy between runs.

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

    for schedule in dict.fromkeys(setting.schedule for setting in settings):
        mine = [setting for setting in settings if setting.schedule == schedule]
        with chunk_rig(mine[0], scale, stage) as rig:
            stage("training the predictor")
            rig.train(list({(one.shape, one.share): one for one in mine}.values()))
            for setting in mine:
                stage(f"{setting.policy}, {setting.shape} at {setting.share:g}, {schedule}")
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
    """S against E in per cent, above 0 where the simulator says more; of attainment in points."""
    cells: list[dict[str, Any]] = []
    for e_cell, s_cell in zip(emulated, simulated, strict=True):
        errors = {
            e.name: {
                **{name: error_pct(getattr(s, name), getattr(e, name)) for name in COMPARED},
                "ttft_attainment_points": round(100.0 * (s.ttft_attainment - e.ttft_attainment), 2),
            }
            for e, s in zip(e_cell.figures, s_cell.figures, strict=True)
        }
        place = {"shape": e_cell.shape, "schedule": e_cell.schedule, "share": e_cell.share}
        cells.append({**place, "error_pct": errors})
    return errors_of(cells)
