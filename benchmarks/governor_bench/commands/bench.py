"""``governor bench``."""

from __future__ import annotations

import click

from governor_bench.commands.engines import bench_engines
from governor_bench.commands.load import bench_load
from governor_bench.commands.output import finish, json_option, progress_bar
from governor_bench.envelope import Stopwatch, envelope


@click.group()
def bench() -> None:
    """Measure decisions, overhead and load on this machine."""


bench.add_command(bench_engines)
bench.add_command(bench_load)


@bench.command("decision")
@click.option("--rows", default="16,64,256,1024", show_default=True, help="Batch sizes.")
@click.option("--samples", default=2000, show_default=True, help="Decisions per size.")
@click.option(
    "--policy",
    default="taper_plus",
    show_default=True,
    help="With one that decides about drafts, such as taper_plus+turbospec, the engine speculates.",
)
@click.option("--predictor", default="corrected-linear", show_default=True)
@click.option("--pace-ms", default=0.0, show_default=True, help="Pause before each question.")
@click.option("--quick", is_flag=True, help="Fewer samples.")
@json_option
def bench_decision(
    rows: str,
    samples: int,
    policy: str,
    predictor: str,
    pace_ms: float,
    quick: bool,
    json_path: str,
) -> None:
    """Latency of a decision over the real wire, beside a bare echo."""
    from controller_service.policies.registry import UnknownPolicy, parse_policy
    from governor_bench.decision import measure

    try:
        parse_policy(policy)
        sizes = [int(size) for size in rows.split(",")]
    except UnknownPolicy as error:
        raise click.BadParameter(str(error), param_hint="--policy") from None
    except ValueError:
        raise click.BadParameter("a list of numbers such as 16,64", param_hint="--rows") from None
    stopwatch = Stopwatch()
    samples = min(samples, 300) if quick else samples
    with progress_bar() as progress:
        cells = measure(sizes, samples, policy, predictor, pace_ms / 1e3, progress)
    worst = max(cells, key=lambda cell: cell["rows"] if cell["rows"] <= 256 else 0)
    report = {
        **{key: worst[key] for key in ("p50_us", "p99_us", "echo_p50_us", "ratio_p50")},
        "policy": policy,
        "cells": cells,
        **envelope(
            tier="wire",
            seeds=[0],
            arguments={
                "rows": sizes,
                "samples": samples,
                "policy": policy,
                "predictor": predictor,
                "pace_ms": pace_ms,
                "quick": quick,
            },
            stopwatch=stopwatch,
        ),
    }
    lines = [
        f"{cell['rows']:5d} rows  p50 {cell['p50_us']:7.1f} us  p99 {cell['p99_us']:7.1f} us  "
        f"echo p50 {cell['echo_p50_us']:7.1f} us  ratio {cell['ratio_p50']:.2f}"
        for cell in cells
    ]
    finish(report, json_path, "\n".join([policy, *lines]))


@bench.command("overhead")
@click.option("--rounds", default=11, show_default=True)
@click.option("--requests", default=64, show_default=True, help="Requests per engine and round.")
@click.option("--overlap", is_flag=True, help="The overlap loop instead of the normal one.")
@click.option("--quick", is_flag=True, help="Fewer rounds.")
@json_option
def bench_overhead(rounds: int, requests: int, overlap: bool, quick: bool, json_path: str) -> None:
    """A governed engine that parks nothing, and one whose controller is down, beside stock."""
    from governor_bench.overhead import measure

    stopwatch = Stopwatch()
    rounds = 2 if quick else rounds
    with progress_bar() as progress:
        result = measure(rounds, requests, overlap=overlap, progress=progress)
    report = {
        **result,
        **envelope(
            tier="C",
            seeds=list(range(1, rounds + 1)),
            arguments={
                "rounds": rounds,
                "requests": requests,
                "overlap": overlap,
                "quick": quick,
            },
            stopwatch=stopwatch,
        ),
    }
    lines = [
        f"{name} / stock: throughput {of['throughput_ratio']:.4f} "
        f"({of['ratio_min']:.4f} to {of['ratio_max']:.4f}), "
        f"p99 step time {of['step_p99_ratio']:.4f}"
        for name, of in (("governed", report), ("controller down", report["controller_down"]))
    ]
    finish(report, json_path, "\n".join([*lines, f"medians of {rounds} rounds"]))
