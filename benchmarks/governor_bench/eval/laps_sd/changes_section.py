"""The sections of ``docs/results/laps_sd.md`` on what is run at one load alone."""

from __future__ import annotations

from statistics import geometric_mean

from governor_bench.eval.laps_sd.plan import FIRST_COME, OURS, TRADE_OFF, WITH_LIMITS
from governor_bench.eval.laps_sd.plots import value
from governor_bench.eval.laps_sd.setting import (
    DECLARED,
    FEW_PLACES,
    POISSON,
    SGLANG_PLACES,
    SILENT,
)
from governor_bench.eval.laps_sd.words import Report, per_hundred, percent
from governor_bench.eval.tables import ratio, table

CHANGES = (
    ("speculates", False, "no speculation"),
    ("cv", POISSON, "Poisson arrivals"),
    ("places", SGLANG_PLACES, f"{SGLANG_PLACES} places, SGLang's own under speculation"),
    ("places", FEW_PLACES, f"{FEW_PLACES} places, a deployment for low latency"),
    ("lengths", SILENT, "prompts tell nothing of lengths"),
    ("lengths", DECLARED, "limits are what requests say"),
)
"""Field of a cell, what it is changed to, and that in words."""
COMPARED = {"mean_s": "mean latency", "p99_s": "p99", "longest_s": "longest"}


def trade_off(report: Report) -> str:
    """Mean latency against the tail, by the share of the places that go to who is late."""
    cells = report["trade_off"]
    rows = [
        (
            cell["shape"],
            "the default" if contender == OURS else f"`{contender.name}`",
            *(ratio(_over_fcfs(cell, contender.name, field)) for field in COMPARED),
            per_hundred(value(cell, contender.name)["preemptions"]),
        )
        for cell in cells
        for contender in TRADE_OFF
    ]
    least, most = TRADE_OFF[0], TRADE_OFF[-1]
    changes = [
        f"{name} from {_average(cells, least.name, field)} to {_average(cells, most.name, field)}"
        for field, name in COMPARED.items()
    ]
    return (
        "## Mean latency against the tail\n\n`late_share` of the places go to who will have taken "
        f"`late` times the mean; load {cells[0]['share']:g}, no hints, over FCFS. From the first "
        f"to the last line: {', '.join(changes)} times FCFS's (geometric means over shapes).\n\n"
        + table(
            (
                "shape",
                f"`{OURS.policy}` with",
                *(f"{name} over FCFS" for name in COMPARED.values()),
                "preemptions per 100",
            ),
            rows,
        )
    )


def _over_fcfs(cell: Report, name: str, field: str) -> float:
    return float(value(cell, name)[field] / value(cell, FIRST_COME.name)[field])


def _average(cells: list[Report], name: str, field: str) -> str:
    return ratio(geometric_mean(_over_fcfs(cell, name, field) for cell in cells))


def variants(report: Report) -> str:
    """One thing changed at a time."""
    rows = [
        (
            _change(cell),
            cell["shape"],
            *(
                f"{figures[one.name]['mean_s']:.2f}" if one.name in figures else "-"
                for one in WITH_LIMITS
            ),
            ratio(figures[OURS.name]["p99_s"] / figures[FIRST_COME.name]["p99_s"]),
            per_hundred(figures[OURS.name]["preemptions"]),
            percent((figures[OURS.name]["estimates"] or {}).get("seconds")),
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
    return next(text for field, changed, text in CHANGES if cell[field] == changed)
