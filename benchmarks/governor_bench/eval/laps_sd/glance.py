"""The head figures of ``docs/results/laps_sd.md``: without hints and with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from governor_bench.eval.laps_sd.plan import (
    FIRST_COME,
    LEAST_ATTAINED,
    OURS,
    SHORTEST_JOB,
)
from governor_bench.eval.laps_sd.plots import value
from governor_bench.eval.laps_sd.setting import LEAST_SHARE, MOST_SHARE
from governor_bench.eval.laps_sd.words import (
    Report,
    per_hundred,
    percent,
    place_of,
    signed_percent,
)
from governor_bench.eval.tables import listed, ratio, table

Form = Callable[[float | None], str]

FIGURES: tuple[tuple[str, str, str, Form], ...] = (
    ("mean latency over FCFS", "0.61", "mean_latency_vs_fcfs", ratio),
    ("over LAS", "below 1", "mean_latency_vs_las", ratio),
    ("over SJF", "below 1", "mean_latency_vs_sjf", ratio),
    ("over the better of LAS and SJF", "below 1", "mean_latency_vs_better_of_las_and_sjf", ratio),
    ("above the oracle", "15 %", "gap_to_srpt", percent),
    ("p99 over FCFS", "1.05", "p99_vs_fcfs", ratio),
    ("the oracle's mean latency over FCFS", "", "srpt_vs_fcfs", ratio),
    (
        "error of the predicted remaining time, median over requests",
        "6.84 %",
        "estimation_error",
        percent,
    ),
    ("of the time per token alone", "", "estimation_error_of_pace", percent),
    ("of the length alone", "", "estimation_error_of_length", percent),
    ("preemptions per 100 requests", "", "preemptions", per_hundred),
)
"""Name, aim, key in the report, form."""

AVERAGES: tuple[tuple[str, str, Form], ...] = (
    ("over FCFS", "mean_latency_vs_fcfs", ratio),
    ("over LAS", "mean_latency_vs_las", ratio),
    ("over SJF", "mean_latency_vs_sjf", ratio),
    ("p99 over FCFS", "p99_vs_fcfs", ratio),
    ("oracle over FCFS", "srpt_vs_fcfs", ratio),
    ("above oracle", "gap_to_srpt", percent),
    ("error", "estimation_error", percent),
    ("bias of pace", "pace_bias", signed_percent),
    ("preemptions", "preemptions", per_hundred),
)


def section(report: Report) -> str:
    """Both grids side by side, then averages by shape."""
    hinted = report["hinted"]
    rows = [
        (
            name,
            aim,
            *(
                form(figures.get(key))
                for grid in (report, hinted)
                for figures in (grid, grid["on_average"])
            ),
        )
        for name, aim, key, form in FIGURES
    ]
    by_shape = [
        (shape + told, *(form(one[key]) for _, key, form in AVERAGES))
        for grid, told in ((report, ""), (hinted, ", hints"))
        for shape, one in grid["by_shape"].items()
    ]
    return (
        f"## At a glance\n\n`{report['policy']}` at loads of {LEAST_SHARE:g} to {MOST_SHARE:g}: "
        f"{report['cells']} cells where prompts tell something of lengths, {hinted['cells']} where "
        "requests declare theirs as well. Averages of ratios are geometric.\n\n"
        + table(
            ("figure", "aim", "worst cell", "average", "worst cell, hints", "average, hints"), rows
        )
        + "\n\n"
        + table(("average of", *(name for name, _, _ in AVERAGES)), by_shape)
    )


def worse(report: Report) -> str:
    """Where ``laps_sd`` is no better."""
    return f"## Where `{OURS.name}` is no better\n\n" + "\n".join(
        f"- {told}: {line}"
        for told, grid in (("No hints", report), ("Hints", report["hinted"]))
        for line in _worse(grid)
    )


def _worse(grid: Report) -> Iterator[str]:
    for other in (FIRST_COME, LEAST_ATTAINED, SHORTEST_JOB):
        found = [
            f"{place_of(cell)} ({over:.3f} x)"
            for cell in grid["curve"]
            if (over := _over(cell, other.name, "mean_s")) >= 1
        ]
        yield f"mean latency is not below `{other.name}`'s: {listed(found)}."
    late = [
        f"{place_of(cell)} ({over:.3f} x)"
        for cell in grid["curve"]
        if (over := _over(cell, FIRST_COME.name, "p99_s")) > 1
    ]
    yield f"p99 is above `{FIRST_COME.name}`'s: {listed(late)}."


def _over(cell: Report, name: str, field: str) -> float:
    return float(value(cell, OURS.name)[field] / value(cell, name)[field])
