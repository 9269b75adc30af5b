"""Commands that this package adds to ``governor``: bench, check, demo, doctor, up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from governor_bench.envelope import Stopwatch, envelope, write_json

json_option = click.option(
    "--json", "json_path", default="", help="Write the report there; '-' is standard output."
)


def _progress() -> Progress:
    return Progress(console=Console(stderr=True), transient=True)


def _finish(report: dict[str, Any], json_path: str, line: str) -> None:
    if json_path:
        write_json(report, json_path)
    if json_path != "-":
        click.echo(line)


@click.group()
def bench() -> None:
    """Measure this machine."""


@bench.command("decision")
@click.option("--rows", default="16,64,256,1024", show_default=True, help="Batch sizes.")
@click.option("--samples", default=2000, show_default=True, help="Decisions per size.")
@click.option("--policy", default="taper", show_default=True)
@click.option("--predictor", default="linear", show_default=True)
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
    from governor_bench.decision import measure

    try:
        sizes = [int(size) for size in rows.split(",")]
    except ValueError:
        raise click.BadParameter("a list of numbers such as 16,64", param_hint="--rows") from None
    stopwatch = Stopwatch()
    samples = min(samples, 300) if quick else samples
    with _progress() as progress:
        cells = measure(sizes, samples, policy, predictor, pace_ms / 1e3, progress)
    worst = max(cells, key=lambda cell: cell["rows"] if cell["rows"] <= 256 else 0)
    report = {
        **{key: worst[key] for key in ("p50_us", "p99_us", "echo_p50_us", "ratio_p50")},
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
    _finish(report, json_path, "\n".join(lines))


@bench.command("overhead")
@click.option("--rounds", default=11, show_default=True)
@click.option("--requests", default=64, show_default=True, help="Requests per engine and round.")
@click.option("--overlap", is_flag=True, help="The overlap loop instead of the normal one.")
@click.option("--quick", is_flag=True, help="Fewer rounds.")
@json_option
def bench_overhead(rounds: int, requests: int, overlap: bool, quick: bool, json_path: str) -> None:
    """Throughput of a governed engine that parks nothing, beside stock."""
    from governor_bench.overhead import measure

    stopwatch = Stopwatch()
    rounds = 2 if quick else rounds
    with _progress() as progress:
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
    _finish(
        report,
        json_path,
        f"governed / stock throughput: {report['throughput_ratio']:.4f} "
        f"(median of {rounds} rounds, {report['ratio_min']:.4f} to {report['ratio_max']:.4f})",
    )


@click.group()
def check() -> None:
    """Prove promises on this machine."""


@check.command("equality")
@click.option("--requests", default=72, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--loop", type=click.Choice(["normal", "overlap", "both"]), default="both")
@click.option("--policy", "policies", default="taper,random:0.5", show_default=True)
@click.option("--engine-args", default="", help="Further engine arguments, e.g. '--tp 2'.")
@click.option("--quick", is_flag=True, help="One loop, fewer requests.")
@json_option
def check_equality(
    requests: int,
    seed: int,
    loop: str,
    policies: str,
    engine_args: str,
    quick: bool,
    json_path: str,
) -> None:
    """Governed greedy tokens against stock ones; exit status 1 if any differ or none was parked."""
    from governor_bench.equality.command import check as run_check

    stopwatch = Stopwatch()
    loops = ["normal", "overlap"] if loop == "both" else [loop]
    if quick:
        loops, requests = loops[:1], min(requests, 16)
    with _progress() as progress:
        result = run_check(
            requests=requests,
            seed=seed,
            loops=loops,
            policies=policies.split(","),
            arguments=tuple(engine_args.split()),
            progress=progress,
        )
    report = {
        **result,
        **envelope(
            tier="C",
            seeds=[seed],
            arguments={
                "requests": requests,
                "loops": loops,
                "policies": policies,
                "engine_args": engine_args,
                "quick": quick,
            },
            stopwatch=stopwatch,
        ),
    }
    _finish(
        report,
        json_path,
        f"{report['requests']} requests, {report['mismatched']} differ from stock, "
        f"{report['parked_row_steps']} row-steps parked",
    )
    if not report["parked_row_steps"]:
        raise click.ClickException("nothing was parked, so nothing was checked; see --policy")
    if report["mismatched"]:
        raise SystemExit(1)


@click.command()
@click.option("--controller", default="", help="HTTP address of a controller that should run.")
@click.option("--no-engine", is_flag=True, help="Skip the comparison with a stock engine.")
@json_option
def doctor(controller: str, no_engine: bool, json_path: str) -> None:
    """Check this installation; exit status 1 if anything is wrong."""
    from governor_bench.doctor import examine

    with _progress() as progress:
        report = examine(controller, with_engine=not no_engine, progress=progress)
    lines = [
        f"{'ok  ' if item['ok'] else 'FAIL'} {item['name']}: {item['detail']}"
        for item in report["checks"]
    ]
    _finish(report, json_path, "\n".join(lines))
    if not report["ok"]:
        raise SystemExit(1)


@click.command()
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build/demo"),
    show_default=True,
)
@click.option("--rounds", default=3, show_default=True, help="Turns of each policy.")
@click.option("--seconds", default=12.0, show_default=True, help="Arrivals per turn.")
@click.option("--quick", is_flag=True, help="One short turn of each policy.")
@json_option
def demo(folder: Path, rounds: int, seconds: float, quick: bool, json_path: str) -> None:
    """One engine, one load, three policies in turns: what each does for its users."""
    from governor_bench.demo.run import run

    if quick:
        rounds, seconds = 1, 6.0
    run(folder, rounds=rounds, seconds=seconds, quick=quick, json_path=json_path)


@click.command()
def up() -> None:
    """Engine and controller on this machine's CPU, left running until Ctrl-C."""
    from governor_bench.demo.up import run

    run()
