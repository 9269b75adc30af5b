"""Tier S: profiles as truth, noise on top, and the simulator for traffic and for recovery."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from governor_profiles import load_profile
from governor_sim.clairvoyant import TruePredictor
from rich.progress import Progress

from controller_service.learning.distributed import run_tasks
from governor_bench.envelope import Stopwatch
from governor_bench.eval.learned.data import SOURCES, SWEEP, served, sweep
from governor_bench.eval.learned.judge import Judged, Truth, judge
from governor_bench.eval.learned.models import contender_names, fitted
from governor_bench.eval.learned.recovery import (
    MACHINE,
    PREDICTOR,
    RecoveryTask,
    run_recovery,
)
from governor_bench.eval.learned.report import Cell, compose_report
from governor_bench.eval.learned.speed import predict_us

STRAIGHT = "qwen3-32b-h200"
BENT = "qwen3-32b-h200-bent"
NOISE = 0.01
SLO_MS = 50.0

RECOVERING = ("linear", "corrected-linear", "boosted", "corrected-boosted")
CHANGES = (
    # NOTE: at twice the step time, more users than this cannot be served within the target even
    # one row a request, and no predictor could bring attainment back.
    (MACHINE, 2.0, 40.0),
    (MACHINE, 0.5, 96.0),
    (PREDICTOR, 0.5, 96.0),
    (PREDICTOR, 2.0, 96.0),
)
"""What changes, by what factor, and under how many users."""
FULL_RUN = (90.0, 1200)
"""Virtual seconds, and the step at which the change comes."""
QUICK_RECOVERING = ("linear", "corrected-linear")
QUICK_CHANGES = (CHANGES[0], CHANGES[2])
QUICK_RUN = (40.0, 600)


class FitTask(msgspec.Struct, frozen=True):
    """One set of steps to fit and to judge."""

    profile: str
    source: str
    seed: int
    seconds: float
    """Of served traffic under each policy."""
    load: float
    """Requests per second of that traffic."""


def run_fit(task: FitTask) -> Judged:
    """Gather, fit, judge."""
    profile = load_profile(task.profile)
    samples = (
        sweep(profile, NOISE, task.seed)
        if task.source == SWEEP
        else served(profile, NOISE, task.seed, task.seconds, task.load, SLO_MS)
    )
    return judge(samples, truth_of(task.profile), task.seed)[0]


def truth_of(name: str) -> Truth:
    """What a profile says of the engine that it describes."""
    profile = load_profile(name)
    bends = profile.bends
    return Truth(
        step=_TrueModel(profile, NOISE),
        graph_rows=profile.graph_rows,
        knee_tokens=0 if bends is None else bends.knee_tokens,
        is_bent=bends is not None,
    )


class _TrueModel(TruePredictor):
    family = "true"

    def files(self) -> dict[str, bytes]:
        return {}


def evaluate_simulated(
    seeds: Sequence[int], progress: Progress, *, quick: bool, cluster: str | None = None
) -> dict[str, Any]:
    """The report of tier S.

    Raises:
        ClusterError: the cluster cannot be used.
    """
    stopwatch = Stopwatch()
    chosen = list(seeds[:1] if quick else seeds)
    fits = fit_tasks(chosen, quick=quick)
    judged = _run(run_fit, fits, f"fitting {len(fits)} times", progress, cluster)
    recoveries = recovery_tasks(chosen, quick=quick)
    grouped = _run(
        run_recovery, recoveries, f"simulating {len(recoveries)} changes", progress, cluster
    )
    return compose_report(
        tier="S",
        cells=[
            Cell(f"{task.profile}, {task.source}", task.seed, task.profile == BENT, one)
            for task, one in zip(fits, judged, strict=True)
        ],
        recovered=[one for group in grouped for one in group],
        speed=_speed(chosen[0]),
        seeds=chosen,
        arguments={"quick": quick, "noise": NOISE, "slo_ms": SLO_MS},
        stopwatch=stopwatch,
    )


def fit_tasks(seeds: Sequence[int], *, quick: bool) -> list[FitTask]:
    return [
        FitTask(profile, source, seed, seconds=12.0 if quick else 160.0, load=3.0)
        for profile in (STRAIGHT, BENT)
        for source in SOURCES
        for seed in seeds
        if not quick or profile == BENT
    ]


def recovery_tasks(seeds: Sequence[int], *, quick: bool) -> list[RecoveryTask]:
    seconds, change_at_step = QUICK_RUN if quick else FULL_RUN
    return [
        RecoveryTask(
            profile,
            QUICK_RECOVERING if quick else RECOVERING,
            "taper",
            changes,
            factor,
            seed,
            noise=NOISE,
            load=load,
            slo_ms=SLO_MS,
            seconds=seconds,
            change_at_step=change_at_step,
        )
        for profile in ((STRAIGHT,) if quick else (STRAIGHT, BENT))
        for changes, factor, load in (QUICK_CHANGES if quick else CHANGES)
        for seed in seeds
    ]


def _speed(seed: int) -> dict[str, dict[str, float]]:
    profile = load_profile(BENT)
    samples = sweep(profile, NOISE, seed)
    models = {name: fitted(name, samples, profile.graph_rows) for name in contender_names()}
    return predict_us(models)


def _run(
    function: Any, tasks: list[Any], title: str, progress: Progress, cluster: str | None
) -> Any:
    bar = progress.add_task(title, total=len(tasks))
    return run_tasks(function, tasks, cluster=cluster, on_result=lambda *_: progress.advance(bar))
