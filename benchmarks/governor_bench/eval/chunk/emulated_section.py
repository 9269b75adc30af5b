"""The section on tier E of ``docs/results/chunk.md``; no figure is typed by hand."""

from __future__ import annotations

from typing import Any

from governor_bench.eval.chunk.entries import attained, place_of, tpot
from governor_bench.eval.tables import table
from governor_bench.eval.tier_e import describe_hosts

RESULT_FILE = "chunk-E.json"
COMMAND = "governor eval chunk --tier E"
FIGURES = {
    "tpot_ms": "mean TPOT, %",
    "short_ttft_p50_s": "median TTFT of short requests, %",
    "throughput_tok_s": "throughput, %",
    "ttft_attainment_points": "TTFT attainment, points",
}

Report = dict[str, Any]


def section(report: Report) -> str:
    """The section's text."""
    return "\n\n".join((_head(report), _grid(report), _error(report)))


def _head(report: Report) -> str:
    arguments = report["arguments"]
    quick = ", a quick run" if arguments["quick"] else ""
    return (
        "## On real SGLang\n\nTier E: stock SGLang over HTTP with a real controller, on the "
        "[emulated engine](../emulated-engine.md), which takes the profile's time for each step "
        f"(`{COMMAND} --json ...`, `benchmarks/results/{RESULT_FILE}`).\n\n"
        "- One engine a schedule; the policy changes between runs. Fixed budgets are those of the "
        f"policy `fixed_chunk`. Seeds {report['seeds']}, {arguments['runs']} runs in "
        f"{report['seconds']:.0f} s on {report['machine']['cpus']} CPUs{quick}.\n"
        f"- {describe_hosts(report['hosts'])}\n"
        "- Runs are short. What has not finished by their end is left out of TPOT and throughput."
    )


def _grid(report: Report) -> str:
    rows = [
        (
            place_of(cell),
            one["name"],
            tpot(one),
            attained(one),
            f"{one['short_ttft_p50_s']:.2f}",
            f"{one['short_ttft_p99_s']:.2f}",
            f"{one['throughput_tok_s']:.0f}",
            f"{one['prefill_tokens_per_step']:.0f}",
        )
        for cell in report["curve"]
        for one in cell["figures"]
    ]
    return table(
        (
            "cell",
            "",
            "TPOT, ms",
            "in time, %",
            "short: TTFT p50, s",
            "p99, s",
            "tok/s",
            "tokens a prefill step",
        ),
        rows,
    )


def _error(report: Report) -> str:
    error = report["simulator_error"]
    sums = [
        (
            text,
            f"{error[name]['median_pct']:.1f}",
            f"{error[name]['worst_pct']:.1f}",
            f"{error[name]['mean_signed_pct']:+.1f}",
        )
        for name, text in FIGURES.items()
    ]
    cells = [
        (place_of(cell), name, *(f"{found[figure]:+.1f}" for figure in FIGURES))
        for cell in error["cells"]
        for name, found in cell["error_pct"].items()
    ]
    return (
        "The simulator ran the same settings. How far it is off, and above 0 where it says "
        "more:\n\n"
        + table(("figure", "median", "worst", "mean, signed"), sums)
        + "\n\n"
        + table(("cell", "", *FIGURES.values()), cells)
    )
