"""``governor eval laps-sd``: runs the plan, writes the report."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import msgspec
from rich.progress import Progress

from governor_bench.envelope import Stopwatch, envelope
from governor_bench.eval.laps_sd import figures, plan
from governor_bench.eval.laps_sd.plan import Contender, Entry, Place
from governor_bench.eval.laps_sd.setting import Outcome, Setting, workload_for
from governor_bench.eval.laps_sd.simulated import run
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
    parts = [
        part(seeds, quick=quick) for part in (plan.main, plan.hinted, plan.trade_off, plan.variants)
    ]
    settings = settings_of([entry for part in parts for entry in part])
    outcomes = run_all(run, settings, progress, cluster=cluster)
    left = iter(outcomes)
    main, hinted, trade_off, variants = (
        figures.cells_of(named(part, list(islice(left, len(part))))) for part in parts
    )
    return {
        **figures.headline(main),
        "curve": msgspec.to_builtins(main),
        "hinted": {**figures.headline(hinted), "curve": msgspec.to_builtins(hinted)},
        "trade_off": msgspec.to_builtins(trade_off),
        "variants": msgspec.to_builtins(variants),
        "workloads": workloads(parts[0]),
        "hosts": {"times_real_time": min(item.times_real_time for item in outcomes)},
        **envelope(
            tier="S",
            seeds=seeds,
            arguments={"quick": quick, "runs": len(set(settings))},
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
