"""The demo: real controller, real engine, real HTTP, three policies in turns."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import msgspec
from governor_workloads.report import summarise
from governor_workloads.served import Served
from rich.console import Console
from rich.progress import Progress

from governor_bench.demo.measure import Turn, summarise_policy
from governor_bench.demo.plot import plot_steps
from governor_bench.demo.table import render
from governor_bench.demo.workload import DemoLoad
from governor_bench.engine_metrics import read_counters
from governor_bench.envelope import Stopwatch, envelope, write_json
from governor_bench.load.client import LoadClient
from governor_bench.processes import workspace
from governor_bench.servers import Controller, CpuEngine
from governor_bench.tiny_models import tiny_models

POLICIES = ("off", "eager", "taper_plus")
PUBLISHED_AFTER_S = 1.2
WARM_UP_SEED = 999
WARM_UP_S = 6.0
TARGET_OVER_CHAT = 3.2
"""The TPOT target, over what a lonely chat takes with one row a request here: machines differ,
the situation should not."""


def run(folder: Path, *, rounds: int, seconds: float, quick: bool, json_path: str) -> None:
    """Run the demo and write ``report.json`` and ``steps.png`` into ``folder``."""
    console = Console(stderr=json_path == "-")
    stopwatch = Stopwatch()
    model = tiny_models().target
    load = DemoLoad(seconds=seconds)
    with workspace() as scratch, Progress(console=console, transient=True) as progress:
        task = progress.add_task(
            "starting the controller and the engine", total=len(POLICIES) * rounds + 2
        )
        with (
            Controller(scratch, policy="off") as controller,
            CpuEngine(
                scratch,
                model,
                governor={"ENDPOINT": controller.endpoint},
                arguments=["--enable-metrics"],
            ) as engine,
        ):
            controller.wait_ready()
            engine.wait_ready()
            progress.advance(task)
            progress.update(task, description="warming up, choosing the TPOT target")
            tpot_slo_ms = _warm_up(engine, controller, load)
            progress.advance(task)
            turns: list[Turn] = []
            for number in range(rounds):
                # The order rotates, so that no policy always follows the same one.
                for offset in range(len(POLICIES)):
                    policy = POLICIES[(number + offset) % len(POLICIES)]
                    progress.update(
                        task, description=f"round {number + 1} of {rounds}: policy {policy}"
                    )
                    turns.append(_turn(engine, controller, load, policy, number + 1, tpot_slo_ms))
                    progress.advance(task)
    _report(console, folder, turns, load, tpot_slo_ms, stopwatch, quick, json_path)


def _warm_up(engine: CpuEngine, controller: Controller, load: DemoLoad) -> float:
    """Let the predictor see narrow and wide steps; returns the TPOT target in ms."""
    warm = dataclasses.replace(load, seconds=WARM_UP_S)
    served: list[Served] = []
    for policy in ("eager", "off"):
        controller.set_policy(policy)
        results = LoadClient(engine.url).run_open(warm.requests(WARM_UP_SEED, 1e3))
        served = [result.served() for result in results]
    return target_ms(served)


def target_ms(served: Sequence[Served]) -> float:
    """The TPOT target for a machine that served so under ``off``, at least one chat among it."""
    chats = [item.tpot_s for item in served if item.finished and item.branches == 1]
    return max(1.0, round(1e3 * TARGET_OVER_CHAT * median(chats)))


def _turn(
    engine: CpuEngine,
    controller: Controller,
    load: DemoLoad,
    policy: str,
    seed: int,
    tpot_slo_ms: float,
) -> Turn:
    controller.set_policy(policy)
    before = read_counters(engine.url)
    first = _last_step(controller)
    results = LoadClient(engine.url).run_open(load.requests(seed, tpot_slo_ms))
    time.sleep(PUBLISHED_AFTER_S)
    steps = [step for step in controller.steps() if step["step"] > first]
    status = controller.status()
    return Turn.of(
        policy,
        seed,
        summarise([result.served() for result in results]),
        read_counters(engine.url).since(before),
        steps,
        status["engines"][0]["turnaround_us"],
    )


def _last_step(controller: Controller) -> int:
    steps = controller.steps(last=1)
    return int(steps[-1]["step"]) if steps else -1


def _report(
    console: Console,
    folder: Path,
    turns: list[Turn],
    load: DemoLoad,
    tpot_slo_ms: float,
    stopwatch: Stopwatch,
    quick: bool,
    json_path: str,
) -> None:
    summaries = [
        summarise_policy(policy, [turn for turn in turns if turn.policy == policy])
        for policy in POLICIES
    ]
    rounds = len(turns) // len(POLICIES)
    report = {
        "policies": msgspec.to_builtins(summaries),
        "tpot_slo_ms": tpot_slo_ms,
        "workload": load.describe(tpot_slo_ms),
        "turns": [msgspec.to_builtins(msgspec.structs.replace(turn, steps=[])) for turn in turns],
        **envelope(
            tier="C",
            seeds=sorted({turn.seed for turn in turns}),
            arguments={"rounds": rounds, "seconds": load.seconds, "quick": quick},
            stopwatch=stopwatch,
        ),
    }
    write_json(report, str(folder / "report.json"))
    if json_path:
        write_json(report, json_path)
    plot_steps(turns[: len(POLICIES)], tpot_slo_ms, folder / "steps.png")
    console.print(render(summaries, f"One engine, one load, three policies ({rounds} turns each)"))
    console.print(f"Load: {load.describe(tpot_slo_ms)}.")
    console.print(
        "off: one row a request. eager: every branch, as stock SGLang. taper_plus: extra "
        "branches advance while every chat keeps its target."
    )
    console.print(f"Report {folder / 'report.json'}, steps {folder / 'steps.png'}", soft_wrap=True)
