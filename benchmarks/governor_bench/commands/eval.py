"""``governor eval``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from controller_service.commands.cluster import cluster_errors, cluster_option
from governor_bench.commands import eval_summaries as summaries
from governor_bench.commands.output import finish, json_option, progress_bar

RESULTS = Path("benchmarks/results")
MAX_REPORT_BYTES = 64 << 20
SCALES = click.FloatRange(0.1, 100)
SCALE_HELP = "Tier E: stretches every duration alike, so that a slow host can show a fast GPU."
Command = Callable[..., None]


@click.group("eval")
def evaluate() -> None:
    """Compare policies and predictors, and write what came out."""


seeds_option = click.option(
    "--seeds", default=3, show_default=True, type=click.IntRange(1, 100), help="Runs per cell."
)
scale_option = click.option("--scale", default=1.0, show_default=True, type=SCALES, help=SCALE_HELP)


def tiered(
    tiers: Sequence[str], *, plots: str, quick: str, plots_help: str = ""
) -> Callable[[Command], Command]:
    """The options of an evaluation that is run in the simulator and on engines.

    Args:
        tiers: that it knows.
        plots: folder that they go to by default.
        quick: what ``--quick`` leaves out.
        plots_help: what there are plots of, if not of all.
    """
    options = (
        click.option("--tier", type=click.Choice(tiers), default="S", show_default=True),
        click.option(
            "--seeds",
            type=click.IntRange(1, 100),
            help="Runs per cell.  [default: 3; tier E: 1]",
        ),
        click.option("--scale", default=3.0, show_default=True, type=SCALES, help=SCALE_HELP),
        click.option(
            "--plots",
            type=click.Path(file_okay=False, path_type=Path),
            default=Path(plots),
            show_default=True,
            help=plots_help,
        ),
        cluster_option,
        click.option("--quick", is_flag=True, help=quick),
        json_option,
    )

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def seeds_of(tier: str, seeds: int | None) -> list[int]:
    """One run a cell on an emulated engine, which takes its time, and three elsewhere."""
    return list(range(1, (seeds or (1 if tier == "E" else 3)) + 1))


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
@cluster_option
@click.option("--quick", is_flag=True, help="One seed, few loads, short runs.")
@json_option
def taper(
    tier: str,
    seeds: int,
    scale: float,
    validation: Path | None,
    plots: Path,
    cache: Path,
    cluster: str | None,
    quick: bool,
    json_path: str,
) -> None:
    """Branch admission: TAPER, its baselines and ablations, and what goes past it."""
    from governor_bench.eval.cache import OutcomeCache
    from governor_bench.eval.taper.plots import plot_all
    from governor_bench.eval.taper.run import evaluate_emulated, evaluate_simulated

    chosen = list(range(1, seeds + 1))
    with cluster_errors(), progress_bar() as progress:
        if tier == "S":
            validated = None if validation is None else _read(validation)
            report = evaluate_simulated(
                chosen, validated, progress, OutcomeCache(cache), quick=quick, cluster=cluster
            )
        else:
            report = evaluate_emulated(chosen, scale, progress, quick=quick)
    plot_all(report, plots)
    finish(report, json_path, summaries.taper(report, plots))


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


@evaluate.command("predictors")
@click.option("--tier", type=click.Choice(["S", "E", "C"]), default="S", show_default=True)
@seeds_option
@click.option(
    "--scale",
    default=3.0,
    show_default=True,
    type=click.FloatRange(0.1, 100),
    help="Tier E: stretches every duration alike; at 3 the host stays hidden behind the steps.",
)
@click.option(
    "--budget",
    type=click.FloatRange(min=10),
    metavar="SECONDS",
    help="Tiers E and C: wall-clock time of the sweep over the engine.  [default: 420 and 240]",
)
@click.option(
    "--plots",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build/eval/predictors"),
    show_default=True,
)
@cluster_option
@click.option("--quick", is_flag=True, help="One seed, few cells, short runs.")
@json_option
def predictors(
    tier: str,
    seeds: int,
    scale: float,
    budget: float | None,
    plots: Path,
    cluster: str | None,
    quick: bool,
    json_path: str,
) -> None:
    """Predictors: errors on held-out regimes, recovery after a change, the cost of asking."""
    from governor_bench.eval.learned.plots import plot_all
    from governor_bench.eval.learned.simulated import evaluate_simulated

    chosen = list(range(1, seeds + 1))
    with cluster_errors(), progress_bar() as progress:
        if tier == "S":
            report = evaluate_simulated(chosen, progress, quick=quick, cluster=cluster)
        else:
            from controller_service.learning.families import NotEnough
            from governor_bench.eval.learned.engines import evaluate_engine
            from governor_bench.profiling.engine import ProfilingFailed

            try:
                report = evaluate_engine(
                    tier, chosen, scale, progress, quick=quick, budget_s=budget
                )
            except ProfilingFailed as error:
                raise click.ClickException(str(error)) from None
            except NotEnough as error:
                raise click.ClickException(f"{error}; raise --budget") from None
    finish(report, json_path, summaries.predictors(report, plots / tier))
    plot_all(report, plots / tier)


@evaluate.command("speculation")
@tiered(["S", "E", "C"], plots="build/eval/speculation", quick="One seed, few cells, few requests.")
def speculation(
    tier: str,
    seeds: int | None,
    scale: float,
    plots: Path,
    cluster: str | None,
    quick: bool,
    json_path: str,
) -> None:
    """Speculation: how much to draft, against fixed lengths, tables and SGLang's own adaptive."""
    from governor_bench.eval.speculation.cpu.run import evaluate_on_cpu
    from governor_bench.eval.speculation.emulated import evaluate_emulated
    from governor_bench.eval.speculation.plots import plot_all, plot_computed
    from governor_bench.eval.speculation.run import evaluate_simulated
    from governor_bench.eval.speculation.setting import RunFailed

    chosen = seeds_of(tier, seeds)
    with cluster_errors(), progress_bar() as progress:
        if tier == "S":
            report = evaluate_simulated(chosen, progress, quick=quick, cluster=cluster)
        else:
            try:
                report = (
                    evaluate_emulated(chosen, scale, progress, quick=quick)
                    if tier == "E"
                    else evaluate_on_cpu(chosen, progress, quick=quick)
                )
            except RunFailed as error:
                raise click.ClickException(str(error)) from None
    if tier == "C":
        plot_computed(report, plots / tier / "computed.png")
    else:
        plot_all(report, plots / tier)
    finish(report, json_path, summaries.speculation(report, plots / tier))


@evaluate.command("chunk")
@tiered(
    ["S", "E"],
    plots="build/eval/chunk",
    quick="One seed, few cells, short runs.",
    plots_help="Of tier S.",
)
def chunk(
    tier: str,
    seeds: int | None,
    scale: float,
    plots: Path,
    cluster: str | None,
    quick: bool,
    json_path: str,
) -> None:
    """Prefill budgets: adaptive_chunk against fixed ones and SGLang's default."""
    from governor_bench.eval.chunk.emulated import evaluate_emulated
    from governor_bench.eval.chunk.judge import RunFailed
    from governor_bench.eval.chunk.plots import plot_all
    from governor_bench.eval.chunk.run import evaluate_simulated

    chosen = seeds_of(tier, seeds)
    with cluster_errors(), progress_bar() as progress:
        try:
            report = (
                evaluate_simulated(chosen, progress, quick=quick, cluster=cluster)
                if tier == "S"
                else evaluate_emulated(chosen, scale, progress, quick=quick)
            )
        except RunFailed as error:
            raise click.ClickException(str(error)) from None
    finish(report, json_path, summaries.chunk(report, plots))
    if tier == "S":
        plot_all(report, plots)


@evaluate.command("laps-sd")
@tiered(
    ["S", "E"],
    plots="build/eval/laps_sd",
    quick="One seed, few cells, short runs.",
    plots_help="Of tier S.",
)
def laps_sd(
    tier: str,
    seeds: int | None,
    scale: float,
    plots: Path,
    cluster: str | None,
    quick: bool,
    json_path: str,
) -> None:
    """The order of service: laps_sd against FCFS, LAS, SJF and an oracle of SRPT."""
    from governor_bench.eval.laps_sd.emulated import evaluate_emulated
    from governor_bench.eval.laps_sd.judge import RunFailed
    from governor_bench.eval.laps_sd.plots import plot_all
    from governor_bench.eval.laps_sd.run import evaluate_simulated

    chosen = seeds_of(tier, seeds)
    with cluster_errors(), progress_bar() as progress:
        try:
            report = (
                evaluate_simulated(chosen, progress, quick=quick, cluster=cluster)
                if tier == "S"
                else evaluate_emulated(chosen, scale, progress, quick=quick)
            )
        except RunFailed as error:
            raise click.ClickException(str(error)) from None
    finish(report, json_path, summaries.laps_sd(report, plots))
    if tier == "S":
        plot_all(report, plots)


@evaluate.command("document")
@click.option(
    "--to",
    "target",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("docs/results/taper.md"),
    show_default=True,
)
def document(target: Path) -> None:
    """Write the result documents from the files in benchmarks/results; those on predictors, on
    speculation, on prefill budgets and on the order of service beside the other, once there are
    results of them."""
    from governor_bench.eval.chunk import document as chunked
    from governor_bench.eval.laps_sd import document as ordered
    from governor_bench.eval.learned import document as learned
    from governor_bench.eval.speculation import document as speculated
    from governor_bench.eval.taper.document import write

    write(RESULTS, target)
    click.echo(f"wrote {target}")
    if any((RESULTS / learned.result_file(tier)).exists() for tier in learned.TIERS):
        beside = target.with_name("predictors.md")
        learned.write(RESULTS, beside)
        click.echo(f"wrote {beside}")
    for name, written in (
        ("speculation.md", speculated),
        ("chunk.md", chunked),
        ("laps_sd.md", ordered),
    ):
        if (RESULTS / written.RESULT_FILE).exists():
            beside = target.with_name(name)
            written.write(RESULTS, beside)
            click.echo(f"wrote {beside}")


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
