"""The section on tier E of ``docs/results/laps_sd.md``; no figure is typed by hand."""

from __future__ import annotations

from typing import Any

from governor_bench.eval.tables import table
from governor_bench.eval.tier_e import describe_hosts

RESULT_FILE = "laps_sd-E.json"
COMMAND = "governor eval laps-sd --tier E"
FIGURES = {
    "mean_s": "mean latency, %",
    "p50_s": "median, %",
    "p99_s": "p99, %",
    "preemptions": "preemptions per 100, difference",
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
        f"and speculates (`{COMMAND} --json ...`, `benchmarks/results/{RESULT_FILE}`).\n\n"
        "- One engine; the policy changes between runs. A request ends with its limit here, so "
        "that all lengths are declared. `fcfs` is the governed policy of that name. Seeds "
        f"{report['seeds']}, {arguments['runs']} runs in {report['seconds']:.0f} s on "
        f"{report['machine']['cpus']} CPUs{quick}.\n"
        f"- {describe_hosts(report['hosts'])}\n"
        "- Runs are short; who has not ended by their end counts with its age by then."
    )


def _grid(report: Report) -> str:
    rows = [
        (
            f"{cell['shape']}, {cell['share']:g}",
            one["name"],
            f"{one['mean_s']:.2f}",
            f"{one['p50_s']:.2f}",
            f"{one['p99_s']:.2f}",
            f"{one['judged']:.0f} ({one['unfinished']:.0f})",
            f"{one['preemptions']:.1f}",
            f"{one['rows']:.1f}",
        )
        for cell in report["curve"]
        for one in cell["figures"]
    ]
    return table(
        (
            "cell",
            "",
            "mean latency, s",
            "median, s",
            "p99, s",
            "judged (unfinished)",
            "preemptions per 100",
            "rows",
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
        (
            f"{cell['shape']}, {cell['share']:g}",
            name,
            *(f"{found[figure]:+.1f}" for figure in FIGURES),
        )
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
