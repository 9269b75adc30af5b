"""``governor eval``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from controller_service.commands.cluster import cluster_errors, cluster_option
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
    finish(report, json_path, _predictors_summary(report, plots / tier))
    plot_all(report, plots / tier)


@evaluate.command("speculation")
@click.option("--tier", type=click.Choice(["S", "E", "C"]), default="S", show_default=True)
@click.option(
    "--seeds", type=click.IntRange(1, 100), help="Runs per cell.  [default: 3; tier E: 1]"
)
@click.option(
    "--scale",
    default=3.0,
    show_default=True,
    type=click.FloatRange(0.1, 100),
    help="Tier E: stretches every duration alike, so that a slow host can show a fast GPU.",
)
@click.option(
    "--plots",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build/eval/speculation"),
    show_default=True,
)
@cluster_option
@click.option("--quick", is_flag=True, help="One seed, few cells, few requests.")
@json_option
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

    chosen = list(range(1, (seeds or (1 if tier == "E" else 3)) + 1))
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
    finish(report, json_path, _speculation_summary(report, plots / tier))


@evaluate.command("chunk")
@click.option("--tier", type=click.Choice(["S", "E"]), default="S", show_default=True)
@click.option(
    "--seeds", type=click.IntRange(1, 100), help="Runs per cell.  [default: 3; tier E: 1]"
)
@click.option(
    "--scale",
    default=3.0,
    show_default=True,
    type=click.FloatRange(0.1, 100),
    help="Tier E: stretches every duration alike, so that a slow host can show a fast GPU.",
)
@click.option(
    "--plots",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build/eval/chunk"),
    show_default=True,
    help="Of tier S.",
)
@cluster_option
@click.option("--quick", is_flag=True, help="One seed, few cells, short runs.")
@json_option
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

    chosen = list(range(1, (seeds or (1 if tier == "E" else 3)) + 1))
    with cluster_errors(), progress_bar() as progress:
        try:
            report = (
                evaluate_simulated(chosen, progress, quick=quick, cluster=cluster)
                if tier == "S"
                else evaluate_emulated(chosen, scale, progress, quick=quick)
            )
        except RunFailed as error:
            raise click.ClickException(str(error)) from None
    finish(report, json_path, _chunk_summary(report, plots))
    if tier == "S":
        plot_all(report, plots)


@evaluate.command("laps-sd")
@click.option("--tier", type=click.Choice(["S", "E"]), default="S", show_default=True)
@click.option(
    "--seeds", type=click.IntRange(1, 100), help="Runs per cell.  [default: 3; tier E: 1]"
)
@click.option(
    "--scale",
    default=3.0,
    show_default=True,
    type=click.FloatRange(0.1, 100),
    help="Tier E: stretches every duration alike, so that a slow host can show a fast GPU.",
)
@click.option(
    "--plots",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build/eval/laps_sd"),
    show_default=True,
    help="Of tier S.",
)
@cluster_option
@click.option("--quick", is_flag=True, help="One seed, few cells, short runs.")
@json_option
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

    chosen = list(range(1, (seeds or (1 if tier == "E" else 3)) + 1))
    with cluster_errors(), progress_bar() as progress:
        try:
            report = (
                evaluate_simulated(chosen, progress, quick=quick, cluster=cluster)
                if tier == "S"
                else evaluate_emulated(chosen, scale, progress, quick=quick)
            )
        except RunFailed as error:
            raise click.ClickException(str(error)) from None
    finish(report, json_path, _laps_sd_summary(report, plots))
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
    if (RESULTS / speculated.RESULT_FILE).exists():
        beside = target.with_name("speculation.md")
        speculated.write(RESULTS, beside)
        click.echo(f"wrote {beside}")
    if (RESULTS / chunked.RESULT_FILE).exists():
        beside = target.with_name("chunk.md")
        chunked.write(RESULTS, beside)
        click.echo(f"wrote {beside}")
    if (RESULTS / ordered.RESULT_FILE).exists():
        beside = target.with_name("laps_sd.md")
        ordered.write(RESULTS, beside)
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


def _predictors_summary(report: dict[str, Any], plots: Path) -> str:
    def percent(share: float | None) -> str:
        return "-" if share is None else f"{share:.2%}"

    times = report["externality_times_better"]
    asked = " / ".join(f"{value:.1f}" for value in report["predict_us"].values())
    return (
        f"tier {report['tier']}: step error on held-out regimes {percent(report['step_mape'])} "
        f"(linear {percent(report['linear_step_mape'])}), p90 coverage "
        f"{percent(report['step_p90_coverage'])}, externality error "
        f"{percent(report['externality_error'])}"
        + (f" ({times:.1f} times smaller than linear)" if times is not None else "")
        + (f", recovery in {report['recovery_steps']} steps" if report["recovery"] else "")
        + f"; predict_us for 1 / 8 / 64 candidates {asked}; plots in {plots}"
    )


def _speculation_summary(report: dict[str, Any], plots: Path) -> str:
    if report["tier"] == "E":
        error, hosts = report["simulator_error"], report["hosts"]
        rest = (
            f"simulator off by {error['median_pct']:.1f} % (median), {error['worst_pct']:.1f} % "
            f"at worst; host-limited share at most {hosts['host_limited_share']:.2%}"
        )
    elif report["tier"] == "C":
        compared = report["compared_requests"]
        rest = f"tokens of {report['token_mismatches']} of {compared} requests differ"
    else:
        rest = f"global trees {report['tree_vs_local']:.3f} x local ones"
    return (
        f"{report['policy']}: {report['worst_cell_vs_best_fixed']:.3f} x the best fixed length in "
        f"its worst cell; over the grid {report['vs_best_single_fixed']:.3f} x the best single one "
        f"({report['best_single_fixed']}), {report['vs_sglang_adaptive']:.3f} x SGLang's adaptive, "
        f"{report['vs_batch_table']:.3f} x a tuned table by batch size; {rest}; plots in {plots}"
    )


def _chunk_summary(report: dict[str, Any], plots: Path) -> str:
    def figure(key: str, form: str = ".3f") -> str:
        value = report[key]
        return "-" if value is None else format(value, form)

    if report["tier"] == "E":
        errors = report["simulator_error"]
        rest = (
            f"simulator off by {errors['tpot_ms']['median_pct']:.1f} % in TPOT (median), "
            f"{errors['tpot_ms']['worst_pct']:.1f} % at worst; host-limited share at most "
            f"{report['hosts']['host_limited_share']:.2%}"
        )
    else:
        rest = f"plots in {plots}"
    return (
        f"{report['policy']}: TPOT at most {figure('tpot_vs_best_fixed_meeting_ttft')} x the best "
        f"fixed budget that meets the TTFT target, in {report['cells_where_a_fixed_meets']} cells "
        f"where one does; attainment there at least {figure('ttft_attainment', '.1%')}; TPOT at "
        f"most {figure('vs_default_tpot')} x the default's; beside bursts, p99 TTFT of short "
        f"requests at least {figure('vs_default_ttft_p99', '.2f')} times better than the default's "
        f"at {figure('burst_throughput_vs_default')} x its throughput; {rest}"
    )


def _laps_sd_summary(report: dict[str, Any], plots: Path) -> str:
    def figure(key: str, form: str = ".3f") -> str:
        value = report[key]
        return "-" if value is None else format(value, form)

    if report["tier"] == "E":
        error = report["simulator_error"]["mean_s"]
        rest = (
            f"simulator off by {error['median_pct']:.1f} % in mean latency (median), "
            f"{error['worst_pct']:.1f} % at worst; host-limited share at most "
            f"{report['hosts']['host_limited_share']:.2%}"
        )
    else:
        rest = f"plots in {plots}"
    return (
        f"{report['policy']}: mean latency at most {figure('mean_latency_vs_fcfs')} x FCFS, "
        f"{figure('mean_latency_vs_las')} x LAS, {figure('mean_latency_vs_sjf')} x SJF over "
        f"{report['cells']} cells, {figure('gap_to_srpt', '.1%')} above the oracle at worst; p99 "
        f"at most {figure('p99_vs_fcfs')} x FCFS; estimation error "
        f"{figure('estimation_error', '.1%')}; {figure('preemptions', '.1f')} preemptions per 100 "
        f"requests; {rest}"
    )
