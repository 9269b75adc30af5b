"""``governor bench load``."""

from __future__ import annotations

from pathlib import Path

import click

from governor_bench.commands.output import finish, json_option, progress_bar
from governor_bench.commands.sources import Source, source_options, workload_of
from governor_bench.envelope import Stopwatch, envelope

ABOVE_ZERO = click.FloatRange(min=0, min_open=True)


@click.command("load")
@click.option("--url", required=True, help="Base URL of the server, governed or stock.")
@source_options
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
@click.option("--time-scale", type=ABOVE_ZERO, default=1.0, show_default=True)
@click.option("--duration", type=ABOVE_ZERO, help="End after this many s; cuts off the rest.")
@click.option("--warm-up", type=click.FloatRange(min=0), default=0.0, help="Not judged, s.")
@click.option("--limit", type=click.IntRange(min=1), help="At most this many requests.")
@click.option("--vocabulary", type=click.IntRange(min=4), default=2000, show_default=True)
@click.option("--sparse", is_flag=True, help="Ask for the first and the last chunk only.")
@click.option("--tier", type=click.Choice(["C", "E", "G"]), help="What kind of engine it is.")
@json_option
def bench_load(
    url: str,
    mix: Path | None,
    azure: Path | None,
    mooncake: Path | None,
    trace_options: Path | None,
    seed: int,
    time_scale: float,
    duration: float | None,
    warm_up: float,
    limit: int | None,
    vocabulary: int,
    sparse: bool,
    tier: str | None,
    json_path: str,
) -> None:
    """Run a workload against any server; durations are in the workload's clock."""
    from governor_bench.load.measure import Unreachable, limited, measure

    if not url.startswith(("http://", "https://")):
        raise click.BadParameter("an address such as http://127.0.0.1:30000", param_hint="--url")
    if duration is not None and warm_up >= duration:
        raise click.BadParameter("must be shorter than --duration", param_hint="--warm-up")
    source = Source(mix, azure, mooncake, trace_options)
    workload = limited(workload_of(source, seed), limit)
    stopwatch = Stopwatch()
    try:
        with progress_bar() as progress:
            result = measure(
                url.rstrip("/"),
                workload,
                time_scale=time_scale,
                duration_s=duration,
                warm_up_s=warm_up,
                stream=not sparse,
                vocabulary=vocabulary,
                progress=progress,
            )
    except Unreachable as error:
        raise click.ClickException(str(error)) from None
    report = {
        **result,
        **envelope(
            tier=tier or "unstated",
            seeds=[seed],
            arguments={
                "url": url,
                "source": source.name,
                "time_scale": time_scale,
                "duration_s": duration,
                "warm_up_s": warm_up,
                "limit": limit,
                "vocabulary": vocabulary,
                "sparse": sparse,
            },
            stopwatch=stopwatch,
        ),
    }
    finish(
        report,
        json_path,
        f"{report['description']}\n"
        f"{report['requests']} requests judged, {report['failed']} failed, "
        f"{report['unfinished']} cut off; goodput {report['goodput_tok_s']:.1f} of "
        f"{report['throughput_tok_s']:.1f} tok/s; attainment {report['attainment']:.1%} "
        f"(serial {report['serial_attainment']:.1%}, "
        f"branching {report['branching_attainment']:.1%}); "
        f"TTFT p50 {report['ttft_p50_s']:.3f} s, p99 {report['ttft_p99_s']:.3f} s; "
        f"serial TPOT p50 {1e3 * report['serial_tpot_p50_s']:.1f} ms, "
        f"p99 {1e3 * report['serial_tpot_p99_s']:.1f} ms",
    )
