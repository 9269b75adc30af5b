"""All attacks on all engines, and the report."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from governor_bench.envelope import Stopwatch
from governor_bench.faults.clock import WallClock
from governor_bench.faults.engines import (
    cpu_target,
    emulated_engine,
    emulated_target,
    stock_answers,
)
from governor_bench.faults.judge import Verdict
from governor_bench.faults.kinds import Faults
from governor_bench.faults.on_controller import ControllerAttacks
from governor_bench.faults.on_engine import double_identity, kill_embedded, kill_engine
from governor_bench.faults.on_frames import attack_frames
from governor_bench.faults.schedule import MIXES, QUICK_MIXES
from governor_bench.faults.stage import Attack, run_stage
from governor_bench.faults.target import Load, Target
from governor_bench.faults.workload import cpu_requests
from governor_bench.processes import free_port, workspace

REQUESTS = 48
SPREAD_S = 4.0
FRAMES_S = 5.0
TIMES = 2
"""How often what is done to processes is repeated."""

Stage = Callable[[str], None]


@dataclass
class Bench:
    """What all stages share."""

    seed: int
    folder: Path
    tell: Stage
    faults: Faults = field(default_factory=Faults)
    verdict: Verdict = field(default_factory=Verdict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    killed_requests: int = 0

    def rng(self, *names: str) -> Random:
        """Of one stage on one engine: the draws of one do not hang on those of another."""
        return Random(":".join((str(self.seed), *names)))

    def stage(self, name: str, target: Target, attack: Attack) -> None:
        self.tell(f"{target.name}: {name}")
        stopwatch = Stopwatch()
        row = run_stage(name, target, attack, self.faults, self.verdict)
        self.rows.append({**row, "seconds": round(stopwatch.seconds(), 1)})

    @contextlib.contextmanager
    def running(self, target: Target) -> Iterator[Target]:
        """Wait until its engine is ready; at the end, look at what its processes have left."""
        self.tell(f"{target.name}: starting")
        try:
            target.engine.wait_ready()
            yield target
            if not target.engine.is_running() and not target.was_ended(target.engine):
                target.ended_by_themselves.append(target.engine.log.name)
        finally:
            target.engine.stop()
        self.verdict.judge_logs(target.logs)
        self.verdict.unhandled += len(target.ended_by_themselves)
        self.verdict.examples += [f"{log}: ended by itself" for log in target.ended_by_themselves]


def check_faults(seed: int, tell: Stage, *, quick: bool) -> dict[str, Any]:
    """Attack, and judge.

    Args:
        seed: where every draw of the schedule and of the requests comes from.
        tell: told of each stage.

    Returns:
        What is documented in ``docs/faults.md``.

    Raises:
        FaultBenchError: the bench itself did not get through.
        StartFailed: an engine or a controller did not start.
    """
    with workspace() as folder:
        bench = Bench(seed, folder, tell)
        if quick:
            _quick(bench)
        else:
            _cpu(bench)
            _emulated(bench)
        verdict = bench.verdict
        return {
            "total_faults": bench.faults.total,
            "faults": bench.faults.counts(),
            **verdict.broken(),
            "ok": not any(verdict.broken().values()),
            "requests": verdict.requests,
            "requests_of_killed_engines": bench.killed_requests,
            "examples": verdict.examples,
            "stages": bench.rows,
        }


def _quick(bench: Bench) -> None:
    target = emulated_target(
        bench.folder / "e", REQUESTS // 2, bench.seed, SPREAD_S / 2, overlap=True
    )
    with bench.running(target):
        _attack_frames(bench, target, QUICK_MIXES, FRAMES_S / 2)
        attacks = ControllerAttacks(target, bench.faults, bench.rng(target.name), 1)
        bench.stage("controller killed, restarted", target, attacks.killed)


def _cpu(bench: Bench) -> None:
    folder = bench.folder
    engine_clock, clock = WallClock(folder / "engine-clock"), WallClock(folder / "clock")
    specs = cpu_requests(REQUESTS, bench.seed, SPREAD_S)
    bench.tell("stock engine")
    expected = stock_answers(folder, specs)
    target = cpu_target(
        folder / "n", specs, expected, overlap=False, environment=engine_clock.environment
    )
    with bench.running(target):
        _attack_frames(bench, target, tuple(MIXES), FRAMES_S)
        attacks = ControllerAttacks(target, bench.faults, bench.rng(target.name), TIMES)
        for name, attack in (
            ("controller killed, restarted", attacks.killed),
            ("controller stopped", attacks.stopped),
            ("controller slow", attacks.slow),
            ("second controller", attacks.second),
            ("disk full", attacks.disk_full),
            ("out of memory", attacks.out_of_memory),
            ("controller's clock", lambda load: attacks.clock(load, clock)),
            ("engine's clock", lambda load: attacks.engine_clock(load, engine_clock)),
        ):
            bench.stage(name, target, attack)
    port = free_port()
    target = cpu_target(
        folder / "m",
        specs,
        expected,
        overlap=True,
        governor={"ENDPOINT": "embedded", "CONTROLLER_HTTP": f"127.0.0.1:{port}"},
    )
    with bench.running(target):
        rng = bench.rng(target.name)
        bench.stage(
            "embedded controller killed",
            target,
            lambda load: kill_embedded(
                target, bench.faults, rng, TIMES, f"http://127.0.0.1:{port}", load
            ),
        )


def _emulated(bench: Bench) -> None:
    folder = bench.folder / "e"
    target = emulated_target(folder, REQUESTS, bench.seed, SPREAD_S, overlap=True)
    with bench.running(target):
        rng = bench.rng(target.name)
        _attack_frames(bench, target, tuple(MIXES), FRAMES_S)
        attacks = ControllerAttacks(target, bench.faults, rng, 1)
        bench.stage("controller killed, restarted", target, attacks.killed)
        bench.stage("controller stopped", target, attacks.stopped)
        bench.stage("controller slow", target, attacks.slow)

        def killed(load: Load) -> None:
            bench.killed_requests += kill_engine(
                target,
                bench.faults,
                rng,
                lambda log: emulated_engine(folder, log, overlap=True),
                load,
            )

        bench.stage("engine killed", target, killed)
        other = emulated_target(folder, REQUESTS, bench.seed + 1, SPREAD_S, overlap=False)
        with bench.running(other):
            bench.stage(
                "two engines of one identity",
                target,
                lambda load: double_identity(
                    target, other, bench.faults, TIMES, (load, Load(other, bench.verdict))
                ),
            )
            target.end(target.engine, signal.SIGTERM)
            _attack_frames(bench, other, QUICK_MIXES, FRAMES_S)


def _attack_frames(bench: Bench, target: Target, mixes: tuple[str, ...], seconds: float) -> None:
    for mix in mixes:
        rng = bench.rng(target.name, mix)
        attack = attack_frames(target, bench.faults, rng, MIXES[mix], seconds)
        bench.stage(f"frames, {mix}", target, attack)
