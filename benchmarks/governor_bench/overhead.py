"""``governor bench overhead``: what being governed costs when nothing is parked.

A stock engine, a governed one, and a governed one whose controller is down stand side by side and
take turns with the same load, so that drift of the machine falls on all. Engines that have no turn
sleep.
"""

from __future__ import annotations

import contextlib
import random
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from governor_workloads.report import summarise
from rich.progress import Progress

from governor_bench.load.client import LoadClient
from governor_bench.load.spec import RequestSpec
from governor_bench.processes import workspace
from governor_bench.servers import Controller, CpuEngine
from governor_bench.tiny_models import tiny_models

CONCURRENCY = 16
OUTPUT_TOKENS = 48
STOCK, GOVERNED, ALONE = "stock", "governed", "controller_down"
QUIET = ("--sleep-on-idle", "--disable-radix-cache")


class Turn(NamedTuple):
    """One engine's turn with one round's load."""

    throughput_tok_s: float
    step_p50_s: float
    step_p99_s: float
    """Of the pauses between two tokens of a stream, as its user sees them."""


Round = dict[str, Turn]
"""By engine."""


def measure(rounds: int, requests: int, *, overlap: bool, progress: Progress) -> dict[str, Any]:
    """Throughput and step times of the engines, round by round.

    Returns:
        ``throughput_ratio`` (governed to stock, median over the rounds' pairs) and its extremes,
        ``step_p50_ratio``, ``step_p99_ratio``; the same again as ``controller_down`` for the engine
        that has no controller; and the ``rounds``.
    """
    model = tiny_models().target
    with (
        workspace() as folder,
        Controller(folder, policy="eager") as controller,
        contextlib.ExitStack() as stack,
    ):
        controller.wait_ready()
        endpoints = {STOCK: "", GOVERNED: controller.endpoint, ALONE: f"ipc://{folder}/nobody.sock"}
        task = progress.add_task("starting three engines", total=len(endpoints) * (rounds + 1))
        engines: dict[str, CpuEngine] = {}
        for name, endpoint in endpoints.items():
            # One by one: started together, two may choose the same port for their ranks.
            engine = _engine(folder, model, name, endpoint, overlap=overlap)
            engines[name] = stack.enter_context(engine)
            engine.wait_ready()
            turn(engine.url, requests // 2, seed=0)
            progress.advance(task)
        done: list[Round] = []
        for number in range(rounds):
            progress.update(task, description=f"round {number + 1} of {rounds}")
            measured: Round = {}
            for name in _order(list(engines), number):
                measured[name] = turn(engines[name].url, requests, seed=number + 1)
                progress.advance(task)
            done.append(measured)
    return {
        **_compare(done, GOVERNED),
        ALONE: _compare(done, ALONE),
        "rounds": [
            {
                key: figure
                for name in endpoints
                for key, figure in (
                    (f"{name}_tok_s", round(one[name].throughput_tok_s, 1)),
                    (f"{name}_step_p99_ms", round(one[name].step_p99_s * 1e3, 3)),
                )
            }
            for one in done
        ],
    }


def _engine(folder: Path, model: Path, name: str, endpoint: str, *, overlap: bool) -> CpuEngine:
    return CpuEngine(
        folder,
        model,
        overlap=overlap,
        arguments=QUIET,
        governor={"ENDPOINT": endpoint} if endpoint else {},
        log_name=f"{name}.log",
    )


def _order(names: Sequence[str], number: int) -> list[str]:
    """Everybody is first, second and last equally often, and follows everybody else equally often:
    whoever comes later finds a warmer machine."""
    first = number % len(names)
    turned = [*names[first:], *names[:first]]
    return turned if number // len(names) % 2 == 0 else turned[::-1]


def _compare(rounds: Sequence[Round], name: str) -> dict[str, float]:
    """Ratios of one engine to stock: medians over the rounds' pairs."""

    def ratios(of: Callable[[Turn], float]) -> list[float]:
        return [of(one[name]) / of(one[STOCK]) for one in rounds]

    throughput = ratios(lambda turn: turn.throughput_tok_s)
    return {
        "throughput_ratio": round(statistics.median(throughput), 4),
        "ratio_min": round(min(throughput), 4),
        "ratio_max": round(max(throughput), 4),
        "step_p50_ratio": round(statistics.median(ratios(lambda turn: turn.step_p50_s)), 4),
        "step_p99_ratio": round(statistics.median(ratios(lambda turn: turn.step_p99_s)), 4),
    }


def turn(url: str, requests: int, seed: int) -> Turn:
    """A closed loop over half serial, half branching requests."""
    rng = random.Random(seed)
    specs = [
        RequestSpec(
            index=index,
            arrival_s=0.0,
            input_ids=tuple(rng.randrange(3, 2000) for _ in range(rng.randrange(8, 64))),
            max_new_tokens=OUTPUT_TOKENS,
            n=2 if index % 2 else 1,
        )
        for index in range(requests)
    ]
    queue = iter(specs)
    client = LoadClient(url, chunk_times=True)
    results = client.run_closed(lambda: next(queue, None), CONCURRENCY)
    pauses_s = [pause for result in results for pause in result.pauses_s()]
    p50, p99 = np.quantile(pauses_s, [0.5, 0.99])
    report = summarise([result.served() for result in results])
    return Turn(report.throughput_tok_s, float(p50), float(p99))
