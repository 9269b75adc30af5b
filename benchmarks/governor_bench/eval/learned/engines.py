"""Tiers E and C: steps of a real engine, gathered as ``governor profile`` does and, on tier E, from
traffic that it serves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.progress import Progress

from controller_service.learning.model import StepModel
from controller_service.learning.samples import Samples
from governor_bench.envelope import Stopwatch
from governor_bench.eval.learned.data import SERVED, SWEEP
from governor_bench.eval.learned.judge import Truth, judge
from governor_bench.eval.learned.report import Cell, compose_report
from governor_bench.eval.learned.simulated import BENT, NOISE, truth_of
from governor_bench.eval.learned.speed import predict_us
from governor_bench.eval.workloads import SHIFT, workload_of
from governor_bench.load.client import LoadClient
from governor_bench.processes import workspace
from governor_bench.profiling.engine import ControllerApi, Engine
from governor_bench.profiling.plan import make_plan
from governor_bench.profiling.points_file import PointsFile
from governor_bench.profiling.prompts import Prompts
from governor_bench.profiling.run import Settings, Sweep
from governor_bench.profiling.samples_file import samples_of
from governor_bench.profiling.steps import Step, steps_of
from governor_bench.servers import Controller, CpuEngine, EmulatedEngine
from governor_bench.tiny_models import tiny_models

VOCABULARY = 2000
BUDGET_S = {"E": 420.0, "C": 240.0}
QUICK_BUDGET_S = 20.0
MOST_ROWS = {"E": 256, "C": 64}
CHUNK_TOKENS = 8192
SERVED_UNDER = (("eager", 3.0), ("random:0.5", 3.0), ("off", 2.0), ("eager", 1.0))
"""Policies, and requests per second: steps of many widths."""
SERVED_S = 40.0
"""Of the workload's clock, for each; a scale stretches it."""
QUICK_SERVED_S = 8.0
"""Quick: under the first policy alone."""
SLO_MS = 50.0


class Gathered(msgspec.Struct, frozen=True):
    """What an engine brought."""

    samples: dict[str, Samples]
    """By source, in the engine's own time: the emulation's scale is taken out."""
    graph_rows: tuple[int, ...]
    points: int
    """Of the sweep."""
    left: int
    """Points of the plan for which there was no time."""


def evaluate_engine(
    tier: str,
    seeds: Sequence[int],
    scale: float,
    progress: Progress,
    *,
    quick: bool,
    budget_s: float | None = None,
) -> dict[str, Any]:
    """The report of tier E or C. The engine is measured once; each seed holds out other regimes.

    Args:
        scale: tier E: stretches every duration alike; C has none.
        budget_s: wall-clock time of the sweep; None: the tier's own.

    Raises:
        ProfilingFailed: the engine could not be measured.
        NotEnough: too little was measured for a model.
    """
    stopwatch = Stopwatch()
    chosen = list(seeds[:1] if quick else seeds)
    budget_s = budget_s or (QUICK_BUDGET_S if quick else BUDGET_S[tier])
    bar = progress.add_task("starting the engine", total=budget_s)
    scale = scale if tier == "E" else 1.0
    with _engine(tier, scale) as (controller, engine, folder):
        gathered = _gather(
            controller,
            engine,
            folder,
            budget_s,
            MOST_ROWS[tier],
            lambda gone_s, text: progress.update(bar, completed=gone_s, description=text),
        )
        if isinstance(engine, EmulatedEngine):
            progress.update(bar, description="serving traffic")
            gathered.samples[SERVED] = (
                _served(controller, engine, SERVED_UNDER[:1], QUICK_SERVED_S)
                if quick
                else _served(controller, engine, SERVED_UNDER, SERVED_S)
            )
    truth = truth_of(BENT) if tier == "E" else Truth(None, gathered.graph_rows)
    total = len(chosen) * len(gathered.samples)
    progress.update(bar, description=f"fitting {total} times", total=total, completed=0)
    cells: list[Cell] = []
    models: dict[str, StepModel] = {}
    for source, samples in gathered.samples.items():
        for seed in chosen:
            judged, models = judge(samples, truth, seed)
            name = f"emulated {BENT}, {source}" if tier == "E" else f"CPU, {source}"
            cells.append(Cell(name, seed, truth.is_bent, judged))
            progress.advance(bar)
    return compose_report(
        tier=tier,
        cells=cells,
        recovered=[],
        speed=predict_us(models),
        seeds=chosen,
        arguments={
            "quick": quick,
            "scale": scale,
            "noise": NOISE if tier == "E" else None,
            "budget_s": budget_s,
            "points": gathered.points,
            "points_left": gathered.left,
            "samples": {source: len(samples) for source, samples in gathered.samples.items()},
        },
        stopwatch=stopwatch,
    )


@contextlib.contextmanager
def _engine(
    tier: str, scale: float
) -> Iterator[tuple[Controller, CpuEngine | EmulatedEngine, Path]]:
    """A controller, the engine that it governs, and a folder for notes."""
    with workspace() as folder, Controller(folder, policy="eager") as controller:
        settings = {"ENDPOINT": controller.endpoint}
        quiet = ("--sleep-on-idle", "--chunked-prefill-size", str(CHUNK_TOKENS))
        engine = (
            EmulatedEngine(
                folder,
                BENT,
                scale=scale,
                max_running_requests=MOST_ROWS["E"],
                governor={**settings, "EMULATED_NOISE": str(NOISE)},
                arguments=quiet[1:],
            )
            if tier == "E"
            else CpuEngine(folder, tiny_models().target, governor=settings, arguments=quiet)
        )
        with engine:
            controller.wait_ready()
            engine.wait_ready()
            yield controller, engine, folder


def _gather(
    controller: Controller,
    engine: CpuEngine | EmulatedEngine,
    folder: Path,
    budget_s: float,
    most_rows: int,
    tell: Callable[[float, str], None],
) -> Gathered:
    """Drive the engine through a sweep."""
    api = ControllerApi(controller.url)
    facts = api.engine("")
    limits = facts.limits(most_rows, None)
    notes = PointsFile(folder / "points.jsonl", facts.key, fresh=True)
    sweep = Sweep(
        Engine(engine.url, facts.dp_rank),
        api,
        facts,
        limits,
        notes,
        Prompts(VOCABULARY, 1),
        Settings(budget_s, share=1.0),
        lambda _, gone_s, text: tell(gone_s, text),
    )
    outcome = sweep.run(make_plan(limits))
    steps = [step for item in notes.measured for step in item.steps]
    return Gathered(
        samples={SWEEP: _in_its_time(steps, engine)},
        graph_rows=facts.graph_rows,
        points=len(notes.measured),
        left=outcome.left,
    )


def _served(
    controller: Controller,
    engine: EmulatedEngine,
    under: Sequence[tuple[str, float]],
    seconds: float,
) -> Samples:
    """Steps as the controller hears of them while traffic is served."""
    steps: list[Step] = []
    for number, (policy, load) in enumerate(under):
        controller.set_policy(policy)
        newest = controller.steps(last=1)
        workload = workload_of(SHIFT, load, SLO_MS, number + 1, seconds)
        LoadClient(engine.url).run_workload(
            workload, time_scale=engine.scale, duration_s=seconds, stream=False
        )
        steps += steps_of(controller.steps(), int(newest[-1]["step"]) if newest else -1)
    return _in_its_time(steps, engine)


def _in_its_time(steps: Iterable[Step], engine: CpuEngine | EmulatedEngine) -> Samples:
    samples = samples_of(steps).usable()
    scale = engine.scale if isinstance(engine, EmulatedEngine) else 1.0
    return msgspec.structs.replace(samples, latency_s=samples.latency_s / scale)
