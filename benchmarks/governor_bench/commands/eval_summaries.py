"""What ``governor eval`` says in a line when it is done."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any


def taper(report: dict[str, Any], plots: Path) -> str:
    if "goodput_vs_off" not in report:
        return f"tier {report['tier']}: plots in {plots}"
    return (
        f"{report['policy']} at load {report['load']:g}, TPOT target {report['slo_ms']:g} ms: "
        f"{report['goodput_vs_off']:.2f} x off, {report['goodput_vs_eager']:.2f} x eager, "
        f"attainment {report['attainment']:.0%}; never below "
        f"{report['worst_vs_better_of_off_and_eager']:.2f} x the better of the two; "
        f"plots in {plots}"
    )


def predictors(report: dict[str, Any], plots: Path) -> str:
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


def speculation(report: dict[str, Any], plots: Path) -> str:
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


def chunk(report: dict[str, Any], plots: Path) -> str:
    figure = functools.partial(_figure, report)
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


def laps_sd(report: dict[str, Any], plots: Path) -> str:
    figure = functools.partial(_figure, report)
    if report["tier"] == "E":
        error = report["simulator_error"]["mean_s"]
        rest = (
            f"simulator off by {error['median_pct']:.1f} % in mean latency (median), "
            f"{error['worst_pct']:.1f} % at worst; host-limited share at most "
            f"{report['hosts']['host_limited_share']:.2%}"
        )
    else:
        hinted = functools.partial(_figure, report["hinted"])
        rest = (
            f"with hints {hinted('mean_latency_vs_fcfs')} x FCFS, p99 {hinted('p99_vs_fcfs')} x; "
            f"plots in {plots}"
        )
    return (
        f"{report['policy']}: mean latency at most {figure('mean_latency_vs_fcfs')} x FCFS, "
        f"{figure('mean_latency_vs_las')} x LAS, {figure('mean_latency_vs_sjf')} x SJF over "
        f"{report['cells']} cells, {figure('gap_to_srpt', '.1%')} above the oracle at worst; p99 "
        f"at most {figure('p99_vs_fcfs')} x FCFS; estimation error "
        f"{figure('estimation_error', '.1%')}; {figure('preemptions', '.1f')} preemptions per 100 "
        f"requests; {rest}"
    )


def _figure(report: dict[str, Any], key: str, form: str = ".3f") -> str:
    """A headline figure; ``-`` where there are no cells that it is of."""
    value = report[key]
    return "-" if value is None else format(value, form)
