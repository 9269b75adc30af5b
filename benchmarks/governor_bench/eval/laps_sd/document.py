"""Writes ``docs/results/laps_sd.md`` from the result files; no figure is typed by hand."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from governor_bench.eval.laps_sd import changes_section, emulated_section, glance
from governor_bench.eval.laps_sd.plan import (
    BLIND,
    MAIN,
    OURS,
    WITH_LIMITS,
)
from governor_bench.eval.laps_sd.plots import plot_all, value
from governor_bench.eval.laps_sd.setting import (
    BURSTY,
    DRAFT_TOKENS,
    HINTED,
    LEAST_SHARE,
    PLACES,
    PROFILE,
)
from governor_bench.eval.laps_sd.shapes import HINT_SPREAD
from governor_bench.eval.laps_sd.words import (
    Report,
    latency,
    percent,
    place_of,
    signed_percent,
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
LOOKING = tuple(one for one in MAIN if one not in BLIND)
"""Contenders whose figures hints change."""


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
        glance.section(report),
        glance.worse(report),
        _grid(report, "Mean latency", "mean_s"),
        _grid(report, "p99 of latency", "p99_s"),
        _ours(report),
        *([changes_section.trade_off(report)] if report["trade_off"] else []),
        *([changes_section.variants(report)] if report["variants"] else []),
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
        f"come in bursts, so that they are full time and again from a load of {LEAST_SHARE:g} on. "
        "Memory is not short.\n"
        f"- Gaps between arrivals are gamma with a coefficient of variation of {BURSTY:g}: counts "
        f"over long times then have an index of dispersion of {BURSTY**2:g}. Azure's public "
        "conversation trace of 2023 has 16.1 over a minute, its trace of code 164 "
        "(`AzureLLMInferenceTrace_*.csv`), and Poisson arrivals, which are among the variants, "
        "1.\n"
        f"- The engine drafts {DRAFT_TOKENS} tokens for every row at every step. How often they "
        "are right differs from request to request, wanders within it, and is known to nobody at "
        "first. Requests name a limit well above what they say; the oracle alone is told the "
        "truth.\n"
        "- Prompts tell something of how long answers will be. With hints, each request declares "
        f"(`expected_tokens`) what it will write times exp(N(0, {HINT_SPREAD:g})) as well. "
        f"{_and(one.name for one in BLIND)} do not look at hints, and were run once for both.\n"
        "- All traffic is an open loop. The load is a share of what saturates the engine under "
        "`fcfs`. Latency is the time from arrival to last token, over the requests that were sent "
        "in a window; others come before and after it. Who has not ended with the run counts with "
        "its age by then."
    )


def _grid(report: Report, title: str, field: str) -> str:
    hinted = {(cell["shape"], cell["share"]): cell for cell in report["hinted"]["curve"]}
    rows = []
    for cell in report["curve"]:
        beside = hinted.get((cell["shape"], cell["share"]))
        rows.append(
            (
                cell["shape"],
                f"{cell['share']:g} ({cell['rate_per_s']:.2f}/s)",
                *(latency(value(cell, one.name), field) for one in MAIN),
                *(latency(beside and value(beside, one.name), field) for one in LOOKING),
            )
        )
    return (
        f"## {title}\n\nIn seconds; in brackets how many of the judged had not ended.\n\n"
        + table(
            (
                "shape",
                "load",
                *(one.name for one in MAIN),
                *(f"{one.name}, hints" for one in LOOKING),
            ),
            rows,
        )
    )


def _ours(report: Report) -> str:
    rows = []
    for cell in (*report["curve"], *report["hinted"]["curve"]):
        ours = value(cell, OURS.name)
        made = ours["estimates"] or {}
        rows.append(
            (
                place_of(cell) + (", hints" if cell["lengths"] == HINTED else ""),
                f"{ours['judged']:.0f}",
                f"{ours['p50_s']:.2f}",
                f"{ours['longest_s']:.1f}",
                f"{ours['ttft_s']:.2f}",
                f"{ours['rows']:.1f}",
                f"{ours['preemptions']:.1f}",
                *(percent(made.get(key)) for key in ("seconds", "pace", "tokens")),
                signed_percent(made.get("pace_bias")),
                f"{made.get('after_tokens', 0):.0f}",
            )
        )
    return (
        f"## `{OURS.name}` in each cell\n\nErrors are medians, of the predictions made as soon as "
        "a request was perceptible: of its remaining time in the batch, of the time per token "
        "alone (what would be left if lengths were known) and of the remaining length. The bias "
        "is a median with its sign, above 0 where the time per token was taken for longer.\n\n"
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
                "bias of pace",
                "after tokens",
            ),
            rows,
        )
    )


def _workloads(report: Report) -> str:
    lines = [f"- `{name}`: {text}" for name, text in report["workloads"].items()]
    return (
        "## Workloads\n\nAs at the first load of each; the rate follows the load.\n\n"
        + "\n".join(lines)
    )


def _and(names: Iterable[str]) -> str:
    *first, last = (f"`{name}`" for name in names)
    return f"{', '.join(first)} and {last}"
