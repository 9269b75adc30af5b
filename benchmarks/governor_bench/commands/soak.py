"""``governor check soak``."""

from __future__ import annotations

from pathlib import Path

import click

from governor_bench.commands.output import finish, json_option, progress_bar
from governor_bench.envelope import Stopwatch, envelope

LEAST_MINUTES = 0.5


@click.command("soak")
@click.option(
    "--minutes",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=LEAST_MINUTES),
    help="A third of them is warm-up.",
)
@click.option("--seed", default=1, show_default=True)
@click.option(
    "--plot",
    "plot_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw memory, open files and lateness over time into this file.",
)
@json_option
def check_soak(minutes: float, seed: int, plot_path: Path | None, json_path: str) -> None:
    """Churn for long: memory, open files, KV pages, lateness; exit status 1 if anything grows."""
    from governor_bench.soak.judge import WARM_UP, faults
    from governor_bench.soak.run import soak

    stopwatch = Stopwatch()
    with progress_bar() as progress:
        task = progress.add_task("soak", total=60 * minutes)
        result, readings = soak(
            60 * minutes, seed, lambda over_s: progress.update(task, completed=over_s)
        )
    if plot_path is not None:
        from governor_bench.soak.plot import plot

        plot(readings, WARM_UP, plot_path)
    report = {
        **result,
        "ok": not faults(result),
        **envelope(
            tier="E",
            seeds=[seed],
            arguments={"minutes": minutes, "seed": seed},
            stopwatch=stopwatch,
        ),
    }
    finish(
        report,
        json_path,
        f"{minutes:g} minutes: controller {report['controller_rss_mib']} MiB "
        f"({report['controller_rss_growth_pct']:+} %), scheduler {report['scheduler_rss_mib']} MiB "
        f"({report['scheduler_rss_growth_pct']:+} %), {report['files_growth']:+g} open files, "
        f"{report['leaked_tokens']} KV tokens leaked, {report['late_share']:.2%} of "
        f"{report['governed_steps']} steps late\n"
        + ", ".join(f"{count} {name}" for name, count in sorted(report["churn"].items())),
    )
    if not report["ok"]:
        raise click.ClickException("; ".join(faults(result)))
