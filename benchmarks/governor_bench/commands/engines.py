"""``governor bench engines``."""

from __future__ import annotations

import click

from governor_bench.commands.output import finish, json_option, progress_bar
from governor_bench.envelope import Stopwatch, envelope

QUICK_SECONDS = 2.0


@click.command("engines")
@click.option("--engines", default="1,4,16,64", show_default=True, help="Numbers of engines.")
@click.option("--rows", type=click.IntRange(1, 4096), default=128, show_default=True)
@click.option("--steps-per-s", type=click.FloatRange(1, 500), default=50.0, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.5, 600), default=20.0, show_default=True)
@click.option("--warm-up", type=click.FloatRange(0, 60), default=3.0, help="Not judged, s.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--policy", default="taper_plus", show_default=True)
@click.option("--predictor", default="corrected-linear", show_default=True)
@click.option(
    "--controllers", type=click.IntRange(1, 16), default=1, show_default=True, help="Share them."
)
@click.option("--quick", is_flag=True, help="Two seconds each.")
@json_option
def bench_engines(
    engines: str,
    rows: int,
    steps_per_s: float,
    seconds: float,
    warm_up: float,
    seed: int,
    policy: str,
    predictor: str,
    controllers: int,
    quick: bool,
    json_path: str,
) -> None:
    """How many engines one controller serves in time.

    Each asks about every step at its own pace. A decision is late if it is not there when the next
    snapshot leaves, one step later: the engine then goes by its standing orders.
    """
    from controller_service.policies.registry import UnknownPolicy, parse_policy
    from governor_bench.engines.generator import Load
    from governor_bench.engines.measure import measure, most_within_aim

    try:
        parse_policy(policy)
    except UnknownPolicy as error:
        raise click.BadParameter(str(error), param_hint="--policy") from None
    try:
        counts = [int(count) for count in engines.split(",")]
    except ValueError:
        raise click.BadParameter("numbers such as 1,16,64", param_hint="--engines") from None
    if not all(1 <= count <= 256 for count in counts):
        raise click.BadParameter("1 to 256, as many as are served", param_hint="--engines")
    stopwatch = Stopwatch()
    if quick:
        seconds, warm_up = min(seconds, QUICK_SECONDS), min(warm_up, 1.0)
    load = Load([], [], 0, rows, steps_per_s, seconds, warm_up, seed)
    with progress_bar() as progress:
        cells = measure(counts, load, policy, predictor, controllers, progress)
    most = most_within_aim(cells)
    report = {
        "most_within_aim": most,
        "cells": cells,
        **envelope(
            tier="wire",
            seeds=[seed],
            arguments={
                "engines": counts,
                "rows": rows,
                "steps_per_s": steps_per_s,
                "seconds": seconds,
                "warm_up": warm_up,
                "policy": policy,
                "predictor": predictor,
                "controllers": controllers,
                "quick": quick,
            },
            stopwatch=stopwatch,
        ),
    }
    lines = [
        f"{cell['engines']:4d} engines  p50 {cell['p50_ms']:7.2f} ms  p99 {cell['p99_ms']:7.2f} ms"
        f"  late {100 * cell['late_share']:6.3f} %  {cell['answered_per_s']:6.0f} decisions/s"
        f"  CPU {cell['controller_cpu']:.2f} + {cell['generator_cpu']:.2f} (generator)"
        f" + {cell['others_cpu']:.2f} (others)"
        for cell in cells
    ]
    finish(report, json_path, "\n".join([*lines, f"within the aim: up to {most} engines"]))
