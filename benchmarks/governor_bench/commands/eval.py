"""``governor eval``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from governor_bench.commands.output import finish, json_option, progress_bar

RESULTS = Path("benchmarks/results")
MAX_REPORT_BYTES = 64 << 20


@click.group("eval")
def evaluate() -> None:
    """Compare policies."""


seeds_option = click.option(
    "--seeds", default=3, show_default=True, type=click.IntRange(1, 100), help="Runs per cell."
)
scale_option = click.option(
    "--scale",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0.1, 100),
    help="Tier E: stretches every duration alike, so that a slow host can show a fast GPU.",
)


@evaluate.command("taper")
@click.option("--tier", type=click.Choice(["S", "E"]), default="S", show_default=True)
@seeds_option
@scale_option
@click.option(
    "--validation",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Report of 'governor eval validate' to show beside the figures.",
)
@click.option(
    "--plots",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build/eval/taper"),
    show_default=True,
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build/eval/cache"),
    show_default=True,
    help="Tier S: finished runs are kept here, so that an interrupted evaluation goes on.",
)
@click.option("--quick", is_flag=True, help="One seed, few loads, short runs.")
@json_option
def taper(
    tier: str,
    seeds: int,
    scale: float,
    validation: Path | None,
    plots: Path,
    cache: Path,
    quick: bool,
    json_path: str,
) -> None:
    """Branch admission: TAPER, its baselines and ablations, and what goes past it."""
    from governor_bench.eval.cache import OutcomeCache
    from governor_bench.eval.taper.plots import plot_all
    from governor_bench.eval.taper.run import evaluate_emulated, evaluate_simulated

    chosen = list(range(1, seeds + 1))
    with progress_bar() as progress:
        if tier == "S":
            validated = None if validation is None else _read(validation)
            report = evaluate_simulated(
                chosen, validated, progress, OutcomeCache(cache), quick=quick
            )
        else:
            report = evaluate_emulated(chosen, scale, progress, quick=quick)
    plot_all(report, plots)
    finish(report, json_path, _summary(report, plots))


@evaluate.command("validate")
@scale_option
@click.option("--quick", is_flag=True, help="Two short settings.")
@json_option
def validate(scale: float, quick: bool, json_path: str) -> None:
    """The simulator against real SGLang with emulated step times, on the same settings."""
    from governor_bench.eval.taper.run import validate as run

    with progress_bar() as progress:
        report = run(scale, progress, quick=quick)
    finish(
        report,
        json_path,
        f"S against E, {report['settings']} settings: median error of TPOT "
        f"{report['median_tpot_error_pct']:.1f} %, of goodput "
        f"{report['median_goodput_error_pct']:.1f} %",
    )


@evaluate.command("document")
@click.option(
    "--to",
    "target",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("docs/results/taper.md"),
    show_default=True,
)
def document(target: Path) -> None:
    """Write the result documents from the files in benchmarks/results."""
    from governor_bench.eval.taper.document import write

    write(RESULTS, target)
    click.echo(f"wrote {target}")


def _read(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        data = file.read(MAX_REPORT_BYTES)
    try:
        decoded: dict[str, Any] = msgspec.json.decode(data, type=dict)
    except msgspec.DecodeError as error:
        raise click.BadParameter(f"{path}: {error}", param_hint="--validation") from None
    if "median_tpot_error_pct" not in decoded:
        raise click.BadParameter(
            f"{path} is no report of 'governor eval validate'", param_hint="--validation"
        )
    return decoded


def _summary(report: dict[str, Any], plots: Path) -> str:
    if "goodput_vs_off" not in report:
        return f"tier {report['tier']}: plots in {plots}"
    return (
        f"{report['policy']} at load {report['load']:g}, TPOT target {report['slo_ms']:g} ms: "
        f"{report['goodput_vs_off']:.2f} x off, {report['goodput_vs_eager']:.2f} x eager, "
        f"attainment {report['attainment']:.0%}; never below "
        f"{report['worst_vs_better_of_off_and_eager']:.2f} x the better of the two; "
        f"plots in {plots}"
    )
