"""Writes ``docs/results/chunk.md`` from the result files; no figure is typed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from governor_bench.eval.chunk import emulated_section
from governor_bench.eval.chunk.entries import attained, place_of, tpot
from governor_bench.eval.chunk.figures import MET
from governor_bench.eval.chunk.plan import ADAPTIVE, DEFAULT, FIXED, TREES, TREES_SHARE
from governor_bench.eval.chunk.plots import plot_all, value
from governor_bench.eval.chunk.setting import (
    DEFAULT_TOKENS,
    DRAIN_S,
    MIXED,
    MOST_TOKENS,
    PREFILL_FIRST,
    PROFILE,
    WARM_UP_S,
)
from governor_bench.eval.chunk.shapes import LONG_BURSTS
from governor_bench.eval.result_files import read_report
from governor_bench.eval.tables import listed, percent, ratio, table

RESULT_FILE = "chunk-S.json"
COMMAND = "governor eval chunk --tier S"
PLOTS = {
    "tpot": "TPOT over load",
    "ttft": "TTFT over load",
    "attainment": "TTFT attainment over load",
    "burst": "One burst of long prompts",
}

Report = dict[str, Any]


def write(results: Path, target: Path) -> None:
    """Write the document to ``target`` and its plots beside it.

    Raises:
        FileNotFoundError: there is no result file; says which command writes one.
    """
    text = compose(results)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    plot_all(read_report(results / RESULT_FILE, COMMAND), target.parent / "plots" / "chunk")


def compose(results: Path) -> str:
    """The document's text.

    Raises:
        FileNotFoundError: see :func:`write`.
    """
    report = read_report(results / RESULT_FILE, COMMAND)
    emulated = results / emulated_section.RESULT_FILE
    parts = [
        _head(report),
        _glance(report),
        _worse(report),
        _grid(report, "TPOT", "Mean TPOT, ms; in brackets where the target is missed.", tpot),
        _grid(report, "TTFT attainment", "Share of the requests, in per cent.", attained),
        _bursts(report),
        _single(report),
        *([_trees(report)] if report["trees"] else []),
        *(
            [emulated_section.section(read_report(emulated, emulated_section.COMMAND))]
            if emulated.exists()
            else []
        ),
        "## Plots\n\n"
        + "\n\n".join(f"![{title}](plots/chunk/{name}.png)" for name, title in PLOTS.items()),
        _workloads(report),
    ]
    return "\n\n".join(parts) + "\n"


def _head(report: Report) -> str:
    quick = ", a quick run" if report["arguments"]["quick"] else ""
    return (
        "# The prefill budget\n\nWritten by `governor eval document` from "
        f"`benchmarks/results/{RESULT_FILE}` (`{COMMAND} --json ...`).\n\n"
        f"- Tier S: the simulator with the profile `{PROFILE}`; nothing here was measured on a "
        f"GPU. Seeds {report['seeds']}, medians over them; {report['arguments']['runs']} runs in "
        f"{report['seconds']:.0f} s on {report['machine']['cpus']} CPUs{quick}.\n"
        f"- `fixed N` is an ungoverned engine that was started with a chunk of N tokens, `default` "
        f"one with SGLang's own, {DEFAULT_TOKENS} ({MOST_TOKENS} in one step at most), "
        f"{PREFILL_FIRST}. `{ADAPTIVE.name}` governs an engine that was started with "
        f"{DEFAULT_TOKENS}.\n"
        f"- Two schedules. `{PREFILL_FIRST}`: a step prefills or decodes, and prefill goes first "
        f"(overlap loop). `{MIXED}`: rows decode in the steps that prefill (normal loop, for "
        "every contender of this schedule but `default`).\n"
        "- All traffic is an open loop. The load is a share of what saturates the engine under its "
        f"default. Requests that are sent in the first {WARM_UP_S:g} s are not judged; others go "
        f"on coming after the judged ones, and the run ends {DRAIN_S:g} s after the last came. "
        "A request without a first token by then has missed its target if that is over.\n"
        "- TPOT is the mean over finished requests of each one's time per token. A budget meets "
        f"the TTFT target of a cell if {MET:.0%} of the requests get their first token in time."
    )


def _glance(report: Report) -> str:
    cells = report["cells_where_a_fixed_meets"]
    rows = [
        (
            f"TPOT over the best fixed budget that meets the TTFT target, worst of {cells} cells",
            "below 1",
            ratio(report["tpot_vs_best_fixed_meeting_ttft"]),
        ),
        ("the same, geometric mean", "", ratio(report["tpot_vs_best_fixed_meeting_ttft_mean"])),
        (
            "TTFT attainment, worst of these cells",
            f"{MET:.0%}",
            percent(report["ttft_attainment"], 1),
        ),
        ("TPOT over the default, worst of all cells", "", ratio(report["vs_default_tpot"])),
        ("the same, geometric mean", "", ratio(report["vs_default_tpot_mean"])),
        (
            "p99 TTFT of short requests beside bursts, times better than the default, worst",
            "5",
            ratio(report["vs_default_ttft_p99"]),
        ),
        (
            "throughput there over the default's, worst",
            "0.95",
            ratio(report["burst_throughput_vs_default"]),
        ),
        (
            "TPOT over the best single fixed budget, geometric mean, worse schedule",
            "",
            ratio(report["vs_best_single_fixed"]),
        ),
        ("longest wait for a first token, s", "", f"{report['longest_wait_s']:.1f}"),
    ]
    return f"## At a glance\n\n`{report['policy']}`:\n\n" + table(
        ("figure", "aim", "measured"), rows
    )


def _worse(report: Report) -> str:
    """Where governing is no better."""
    slower, late, than_default = [], [], []
    for cell in report["curve"]:
        ours = value(cell, ADAPTIVE.name)
        fixed = [value(cell, one.name) for one in FIXED]
        met = [one for one in fixed if one["ttft_attainment"] >= MET]
        if met:
            best = min(met, key=lambda one: float(one["tpot_ms"]))
            over = ours["tpot_ms"] / best["tpot_ms"]
            if over >= 1:
                slower.append(f"{place_of(cell)} ({over:.3f} x {best['name']})")
            if ours["ttft_attainment"] < MET:
                late.append(f"{place_of(cell)} ({percent(ours['ttft_attainment'], 1)})")
        over = ours["tpot_ms"] / value(cell, DEFAULT.name)["tpot_ms"]
        if over >= 1:
            than_default.append(f"{place_of(cell)} ({over:.3f} x)")
    lines = [
        f"- TPOT is not below the best fixed budget that meets the target: {listed(slower)}.",
        f"- Fewer than {MET:.0%} are in time where a fixed budget gets there: {listed(late)}.",
        f"- TPOT is not below the default's: {listed(than_default)}.",
    ]
    return "## Where governing is no better\n\n" + "\n".join(lines)


def _grid(report: Report, title: str, text: str, entry: Any) -> str:
    names = [one.name for one in (*FIXED, DEFAULT, ADAPTIVE)]
    rows = [
        (
            cell["shape"],
            cell["schedule"],
            f"{cell['share']:g} ({cell['rate_per_s']:.2f}/s)",
            f"x {cell['target_factor']:g}",
            *(entry(value(cell, name)) for name in names),
        )
        for cell in report["curve"]
    ]
    return f"## {title}\n\n{text}\n\n" + table(
        ("shape", "schedule", "load", "targets", *names), rows
    )


def _bursts(report: Report) -> str:
    names = [DEFAULT.name, ADAPTIVE.name]
    rows = []
    for cell in report["curve"]:
        if cell["shape"] != LONG_BURSTS.name:
            continue
        for name in names:
            found = value(cell, name)
            rows.append(
                (
                    cell["schedule"],
                    f"{cell['share']:g}",
                    name,
                    f"{found['short_ttft_p50_s']:.2f}",
                    f"{found['short_ttft_p99_s']:.2f}",
                    f"{found['short_tpot_ms']:.1f}",
                    f"{found['tpot_p99_ms']:.0f}",
                    f"{found['longest_wait_s']:.1f}",
                    f"{found['throughput_tok_s']:.0f}",
                )
            )
    return "## Beside bursts of long prompts\n\n" + table(
        (
            "schedule",
            "load",
            "",
            "short: TTFT p50, s",
            "p99, s",
            "TPOT, ms",
            "all: TPOT p99, ms",
            "longest wait, s",
            "tok/s",
        ),
        rows,
    )


def _single(report: Report) -> str:
    rows = [
        (
            schedule,
            one["name"],
            f"{one['cells']} of {one['of_cells']}",
            str(one["ours_meets_in"]),
            f"{one['tpot']:.3f}",
            f"{one['tpot_worst']:.3f}",
        )
        for schedule, one in report["vs_best_single_fixed_by_schedule"].items()
    ]
    return (
        "## The best single fixed budget\n\nThe one that meets the target in most cells, and of "
        f"those alike the one with the lowest TPOT. TPOT of `{ADAPTIVE.name}` over its, where it "
        "meets the target.\n\n"
        + table(("schedule", "budget", "meets in", "ours meets in", "TPOT", "worst cell"), rows)
    )


def _trees(report: Report) -> str:
    rows = [
        (
            cell["shape"],
            cell["schedule"],
            one["name"],
            f"{one['tpot_ms']:.1f}",
            attained(one),
            f"{one['short_ttft_p99_s']:.2f}",
        )
        for cell in report["trees"]
        for one in cell["figures"]
    ]
    return (
        f"## Another predictor\n\nLoad {TREES_SHARE:g}, one seed. `{TREES.name}`: {TREES.note}.\n\n"
        + table(("shape", "schedule", "", "TPOT, ms", "in time, %", "short: TTFT p99, s"), rows)
    )


def _workloads(report: Report) -> str:
    lines = [f"- `{name}`: {text}" for name, text in report["workloads"].items()]
    return (
        "## Workloads\n\nAs at the first load of each; the rate follows the load.\n\n"
        + "\n".join(lines)
    )
