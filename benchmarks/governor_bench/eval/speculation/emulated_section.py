"""The section on tier E of ``docs/results/speculation.md``; no figure is typed by hand."""

from __future__ import annotations

from typing import Any

from governor_bench.eval.speculation.plan import FIXED, TURBOSPEC
from governor_bench.eval.speculation.plots import place_of
from governor_bench.eval.tables import table
from governor_bench.eval.tier_e import describe_hosts

RESULT_FILE = "speculation-E.json"
COMMAND = "governor eval speculation --tier E"

Report = dict[str, Any]


def section(report: Report) -> str:
    """The section's text."""
    return "\n\n".join((_head(report), _glance(report), _grid(report), _error(report)))


def _head(report: Report) -> str:
    arguments = report["arguments"]
    quick = ", a quick run" if arguments["quick"] else ""
    return (
        "## On real SGLang\n\nTier E: stock SGLang over HTTP with a real controller, on the "
        "[emulated engine](../emulated-engine.md#drafts), which takes the profile's time for each "
        "step and meets the luck that the simulator meets (`governor eval speculation --tier E "
        f"--json ...`, `benchmarks/results/{RESULT_FILE}`).\n\n"
        f"- One engine for all runs; the policy changes between them. Seeds {report['seeds']}, "
        f"{arguments['runs']} runs in {report['seconds']:.0f} s on {report['machine']['cpus']} "
        f"CPUs{quick}.\n"
        f"- {describe_hosts(report['hosts'])}\n"
        f"- {report['tree_vs_local_note']}\n\n"
        f"Workload of the first cell: {report['workload']}"
    )


def _glance(report: Report) -> str:
    single, tuned = report["best_single_fixed"], report["batch_table"]
    rows = [
        ("worst cell, against the best fixed length of that cell", "worst_cell_vs_best_fixed"),
        (f"best single fixed length ({single})", "vs_best_single_fixed"),
        ("SGLang's own adaptive", "vs_sglang_adaptive"),
        (f"tuned table by batch size (`{tuned}`)", "vs_batch_table"),
    ]
    return f"`{report['policy']}` against ..., geometric means over the cells:\n\n" + table(
        ("against", "ratio"), [(against, f"{report[key]:.3f}") for against, key in rows]
    )


def _grid(report: Report) -> str:
    names = [one["name"] for one in report["cells"][0]["figures"]]
    fixed = {one.name for one in FIXED}
    rows = []
    for cell in report["cells"]:
        found = {one["name"]: one["tokens_per_s"] for one in cell["figures"]}
        best = max(value for name, value in found.items() if name in fixed)
        rows.append(
            (
                str(cell["load"]),
                place_of(cell).removeprefix("acceptance "),
                *(f"{found[name]:.0f}" for name in names),
                f"{found[TURBOSPEC.name] / best:.3f}",
            )
        )
    return "Tokens per second:\n\n" + table(
        ("users", "acceptance", *names, "turbospec over best fixed"), rows
    )


def _error(report: Report) -> str:
    error = report["simulator_error"]
    rows = [
        (
            str(cell["load"]),
            place_of(cell).removeprefix("acceptance "),
            *(f"{value:+.1f}" for value in cell["error_pct"].values()),
        )
        for cell in error["cells"]
    ]
    return (
        "The simulator ran the same settings. Its tokens per second are off by "
        f"{error['median_pct']:.1f} % (median), {error['worst_pct']:.1f} % at worst, "
        f"{error['mean_signed_pct']:+.1f} % on average; above 0 it promises more. In per cent:\n\n"
        + table(("users", "acceptance", *error["cells"][0]["error_pct"]), rows)
    )
