"""Writes ``docs/results/laps_sd.md`` from the result files; no figure is typed by hand."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from governor_bench.eval.laps_sd import emulated_section
from governor_bench.eval.laps_sd.plan import (
    FIRST_COME,
    LEAST_ATTAINED,
    MAIN,
    OURS,
    SHORTEST_JOB,
    WITH_LIMITS,
)
from governor_bench.eval.laps_sd.plots import plot_all, value
from governor_bench.eval.laps_sd.setting import (
    BURSTY,
    DECLARED,
    DRAFT_TOKENS,
    LEAST_SHARE,
    MOST_SHARE,
    PLACES,
    POISSON,
    PROFILE,
    SGLANG_PLACES,
    SILENT,
)
from governor_bench.eval.result_files import read_report
from governor_bench.eval.tables import table

RESULT_FILE = "laps_sd-S.json"
COMMAND = "governor eval laps-sd --tier S"
PLOTS = {
    "cdf": "Distributions of latency",
    "mean": "Mean latency over load",
    "p99": "p99 of latency over load",
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
    plot_all(read_report(results / RESULT_FILE, COMMAND), target.parent / "plots" / "laps_sd")


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
        _grid(report, "Mean latency", "mean_s"),
        _grid(report, "p99 of latency", "p99_s"),
        _ours(report),
        *([_variants(report)] if report["variants"] else []),
        *(
            [emulated_section.section(read_report(emulated, emulated_section.COMMAND))]
            if emulated.exists()
            else []
        ),
        "## Plots\n\n"
        + "\n\n".join(f"![{title}](plots/laps_sd/{name}.png)" for name, title in PLOTS.items()),
        _workloads(report),
    ]
    return "\n\n".join(parts) + "\n"


def _head(report: Report) -> str:
    quick = ", a quick run" if report["arguments"]["quick"] else ""
    notes = "; ".join(f"`{one.name}`: {one.note}" for one in WITH_LIMITS)
    return (
        "# The order of service\n\nWritten by `governor eval document` from "
        f"`benchmarks/results/{RESULT_FILE}` (`{COMMAND} --json ...`).\n\n"
        f"- Tier S: the simulator with the profile `{PROFILE}`; nothing here was measured on a "
        f"GPU. Seeds {report['seeds']}, medians over them; {report['arguments']['runs']} runs in "
        f"{report['seconds']:.0f} s on {report['machine']['cpus']} CPUs{quick}.\n"
        f"- {notes}. `lpm` is left out: prompts share no prefixes, so that it is `fcfs`; so is "
        "`lof` where all name one limit.\n"
        f"- What is scarce are the {PLACES} places in the batch (`max_running_requests`): arrivals "
        f"come in bursts (gaps with a coefficient of variation of {BURSTY:g}), so that they are "
        f"full time and again from a load of {LEAST_SHARE:g} on. Memory is not short.\n"
        f"- The engine drafts {DRAFT_TOKENS} tokens for every row at every step. How often they "
        "are right differs from request to request, wanders within it, and is known to nobody at "
        "first. Requests name a limit well above what they say; the oracle alone is told the "
        "truth.\n"
        "- All traffic is an open loop. The load is a share of what saturates the engine under "
        "`fcfs`. Latency is the time from arrival to last token, over the requests that were sent "
        "in a window; others come before and after it. Who has not ended with the run counts with "
        "its age by then."
    )


def _glance(report: Report) -> str:
    average = report["on_average"]
    better = "mean latency over the better of LAS and SJF"
    rows = [
        ("mean latency over FCFS", "0.61", *_pair(report, average, "mean_latency_vs_fcfs")),
        ("over LAS", "below 1", *_pair(report, average, "mean_latency_vs_las")),
        ("over SJF", "below 1", *_pair(report, average, "mean_latency_vs_sjf")),
        (better, "below 1", _ratio(report["mean_latency_vs_better_of_las_and_sjf"]), "-"),
        (
            "above the oracle",
            "15 %",
            _percent(report["gap_to_srpt"]),
            _percent(average["gap_to_srpt"]),
        ),
        ("p99 over FCFS", "1.05", *_pair(report, average, "p99_vs_fcfs")),
        ("the oracle's mean latency over FCFS", "", "-", _ratio(average["srpt_vs_fcfs"])),
        (
            "error of the predicted remaining time, median over requests",
            "6.84 %",
            _percent(report["estimation_error"]),
            _percent(average["estimation_error"]),
        ),
        ("of the time per token alone", "", _percent(report["estimation_error_of_pace"]), "-"),
        ("of the length alone", "", _percent(report["estimation_error_of_length"]), "-"),
        (
            "preemptions per 100 requests",
            "",
            f"{report['preemptions']:.1f}",
            f"{average['preemptions']:.1f}",
        ),
    ]
    by_shape = [
        (
            shape,
            *(
                _ratio(one[key])
                for key in (
                    "mean_latency_vs_fcfs",
                    "mean_latency_vs_las",
                    "mean_latency_vs_sjf",
                    "p99_vs_fcfs",
                    "srpt_vs_fcfs",
                )
            ),
            _percent(one["gap_to_srpt"]),
            _percent(one["estimation_error"]),
            f"{one['preemptions']:.1f}",
        )
        for shape, one in report["by_shape"].items()
    ]
    return (
        f"## At a glance\n\n`{report['policy']}` over {report['cells']} cells at loads of "
        f"{LEAST_SHARE:g} to {MOST_SHARE:g}; averages of ratios are geometric.\n\n"
        + table(("figure", "aim", "worst cell", "average"), rows)
        + "\n\n"
        + table(
            (
                "average of",
                "over FCFS",
                "over LAS",
                "over SJF",
                "p99 over FCFS",
                "oracle over FCFS",
                "above oracle",
                "error",
                "preemptions",
            ),
            by_shape,
        )
    )


def _worse(report: Report) -> str:
    """Where ``laps_sd`` is no better."""
    lines = []
    for other in (FIRST_COME, LEAST_ATTAINED, SHORTEST_JOB):
        found = []
        for cell in report["curve"]:
            ratio = value(cell, OURS.name)["mean_s"] / value(cell, other.name)["mean_s"]
            if ratio >= 1:
                found.append(f"{place_of(cell)} ({ratio:.3f} x)")
        lines.append(f"- Mean latency is not below `{other.name}`'s: {_listed(found)}.")
    late = []
    for cell in report["curve"]:
        ratio = value(cell, OURS.name)["p99_s"] / value(cell, FIRST_COME.name)["p99_s"]
        if ratio > 1:
            late.append(f"{place_of(cell)} ({ratio:.3f} x)")
    lines.append(f"- p99 is above `{FIRST_COME.name}`'s: {_listed(late)}.")
    return f"## Where `{OURS.name}` is no better\n\n" + "\n".join(lines)


def _grid(report: Report, title: str, field: str) -> str:
    rows = [
        (
            cell["shape"],
            f"{cell['share']:g} ({cell['rate_per_s']:.2f}/s)",
            *(_latency(value(cell, one.name), field) for one in MAIN),
        )
        for cell in report["curve"]
    ]
    return (
        f"## {title}\n\nIn seconds; in brackets how many of the judged had not ended.\n\n"
        + table(("shape", "load", *(one.name for one in MAIN)), rows)
    )


def _ours(report: Report) -> str:
    rows = []
    for cell in report["curve"]:
        ours = value(cell, OURS.name)
        made = ours["estimates"] or {}
        rows.append(
            (
                place_of(cell),
                f"{ours['judged']:.0f}",
                f"{ours['p50_s']:.2f}",
                f"{ours['longest_s']:.1f}",
                f"{ours['ttft_s']:.2f}",
                f"{ours['rows']:.1f}",
                f"{ours['preemptions']:.1f}",
                *(_percent(made.get(key)) for key in ("seconds", "pace", "tokens")),
                f"{made.get('after_tokens', 0):.0f}",
            )
        )
    return (
        f"## `{OURS.name}` in each cell\n\nErrors are medians, of the predictions made as soon as "
        "a request was perceptible: of its remaining time in the batch, of the time per token "
        "alone (what would be left if lengths were known) and of the remaining length.\n\n"
        + table(
            (
                "cell",
                "judged",
                "median, s",
                "longest, s",
                "TTFT, s",
                "rows",
                "preemptions per 100",
                "error",
                "of pace",
                "of length",
                "after tokens",
            ),
            rows,
        )
    )


def _variants(report: Report) -> str:
    rows = [
        (
            _change(cell),
            cell["shape"],
            *(
                f"{figures[one.name]['mean_s']:.2f}" if one.name in figures else "-"
                for one in WITH_LIMITS
            ),
            _ratio(figures[OURS.name]["p99_s"] / figures[FIRST_COME.name]["p99_s"]),
            f"{figures[OURS.name]['preemptions']:.1f}",
            _percent((figures[OURS.name]["estimates"] or {}).get("seconds")),
        )
        for cell in report["variants"]
        for figures in ({one["name"]: one for one in cell["figures"]},)
    ]
    share = report["variants"][0]["share"]
    return f"## One thing changed\n\nLoad {share:g}; mean latency in seconds.\n\n" + table(
        (
            "change",
            "shape",
            *(one.name for one in WITH_LIMITS),
            "p99 over FCFS",
            "preemptions per 100",
            "error",
        ),
        rows,
    )


def _change(cell: Report) -> str:
    if not cell["speculates"]:
        return "no speculation"
    if cell["cv"] == POISSON:
        return "Poisson arrivals"
    if cell["places"] == SGLANG_PLACES:
        return f"{SGLANG_PLACES} places, SGLang's own under speculation"
    if cell["lengths"] == SILENT:
        return "prompts tell nothing of lengths"
    if cell["lengths"] == DECLARED:
        return "limits are what requests say"
    return "none"


def _workloads(report: Report) -> str:
    lines = [f"- `{name}`: {text}" for name, text in report["workloads"].items()]
    return (
        "## Workloads\n\nAs at the first load of each; the rate follows the load.\n\n"
        + "\n".join(lines)
    )


def place_of(cell: Report) -> str:
    """A cell in words."""
    return f"{cell['shape']}, {cell['share']:g}"


def _latency(figures: Report, field: str) -> str:
    unfinished = f" ({figures['unfinished']:.0f})" if figures["unfinished"] else ""
    return f"{figures[field]:.2f}{unfinished}"


def _pair(report: Report, average: Report, key: str) -> tuple[str, str]:
    return _ratio(report[key]), _ratio(average[key])


def _listed(places: Iterable[str]) -> str:
    return "; ".join(places) or "nowhere"


def _ratio(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.3f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
