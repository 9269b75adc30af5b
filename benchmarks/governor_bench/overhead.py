"""``governor bench overhead``: what being governed costs when nothing is parked.

A stock and a governed engine stand side by side and take turns with the same load, so that drift
of the machine falls on both. The engine that has no turn sleeps.
"""

from __future__ import annotations

import random
import statistics
from typing import Any

from governor_workloads.report import summarise
from rich.progress import Progress

from governor_bench.load.client import LoadClient
from governor_bench.load.spec import RequestSpec
from governor_bench.processes import workspace
from governor_bench.servers import Controller, CpuEngine
from governor_bench.tiny_models import tiny_models

CONCURRENCY = 16
OUTPUT_TOKENS = 48


def measure(rounds: int, requests: int, *, overlap: bool, progress: Progress) -> dict[str, Any]:
    """Throughput of both engines, round by round.

    Returns:
        ``throughput_ratio`` (governed to stock, median over the rounds' pairs), ``rounds``.
    """
    model = tiny_models().target
    with workspace() as folder, Controller(folder, policy="eager") as controller:
        controller.wait_ready()
        quiet = ["--sleep-on-idle", "--disable-radix-cache"]
        with (
            CpuEngine(
                folder, model, overlap=overlap, arguments=quiet, log_name="stock.log"
            ) as stock,
            CpuEngine(
                folder,
                model,
                overlap=overlap,
                arguments=quiet,
                governor={"ENDPOINT": controller.endpoint},
                log_name="governed.log",
            ) as governed,
        ):
            task = progress.add_task("starting two engines", total=2 * rounds + 2)
            for engine in (stock, governed):
                engine.wait_ready()
                throughput(engine.url, requests // 2, seed=0)
                progress.advance(task)
            pairs = []
            for number in range(rounds):
                progress.update(task, description=f"round {number + 1} of {rounds}")
                # Who goes first alternates: whoever follows finds a warmer machine.
                order = (stock, governed) if number % 2 == 0 else (governed, stock)
                measured = {}
                for engine in order:
                    measured[engine] = throughput(engine.url, requests, seed=number + 1)
                    progress.advance(task)
                pairs.append((measured[stock], measured[governed]))
    ratios = [governed_tok_s / stock_tok_s for stock_tok_s, governed_tok_s in pairs]
    return {
        "throughput_ratio": round(statistics.median(ratios), 4),
        "ratio_min": round(min(ratios), 4),
        "ratio_max": round(max(ratios), 4),
        "rounds": [{"stock_tok_s": round(a, 1), "governed_tok_s": round(b, 1)} for a, b in pairs],
    }


def throughput(url: str, requests: int, seed: int) -> float:
    """Output tokens per second of a closed loop over half serial, half branching requests."""
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
    results = LoadClient(url).run_closed(lambda: next(queue, None), CONCURRENCY)
    return summarise([result.served() for result in results]).throughput_tok_s
