"""Writes ``docs/results/predictors.md`` from the result files; no figure is typed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from governor_bench.eval.learned.judge import EVERYWHERE
from governor_bench.eval.learned.models import LINEAR
from governor_bench.eval.learned.plots import plot_all, shown_cell
from governor_bench.eval.result_files import read_report
from governor_bench.eval.tables import table

TIERS = ("S", "E", "C")
STEP_AIM = {"S": 1.8, "E": 1.8, "C": 8.0}
"""Per cent."""
ENGINES = {
    "S": "profiles with 1 % noise as the truth, and the simulator",
    "E": "real SGLang with emulated step times and 1 % noise",
    "C": "real SGLang that computes a small model on the CPU",
}
PLOTS = {
    "predicted": "Predicted against measured",
    "regimes": "Error by regime",
    "externality": "Cost of added rows",
    "recovery": "Recovery after a change",
    "predict_us": "What it costs to ask",
}

Report = dict[str, Any]


def result_file(tier: str) -> str:
    return f"predictors-{tier}.json"


def write(results: Path, target: Path) -> None:
    """Write the document to ``target`` and its plots beside it.

    Raises:
        FileNotFoundError: there is no result file at all; says which command writes one.
    """
    reports = read(results)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(compose(results))
    for tier, report in reports.items():
        plot_all(report, target.parent / "plots" / "predictors" / tier)


def read(results: Path) -> dict[str, Report]:
    """Reports by tier, those that are there.

    Raises:
        FileNotFoundError: see :func:`write`.
    """
    files = {tier: results / result_file(tier) for tier in TIERS}
    there = [tier for tier, path in files.items() if path.exists()]
    return {
        tier: read_report(files[tier], f"governor eval predictors --tier {tier}")
        for tier in there or ["S"]
    }


def compose(results: Path) -> str:
    """The document's text.

    Raises:
        FileNotFoundError: see :func:`write`.
    """
    reports = read(results)
    parts = [_head(reports), _glance(reports)]
    for tier, report in reports.items():
        parts.append(_steps(tier, report))
        if any(cell["is_bent"] for cell in report["cells"]):
            parts.append(_externalities(report))
        if report["recovery"]:
            parts.append(_recoveries(report))
        parts.append(_asking(report))
        parts.append(_plots(tier, report))
    return "\n\n".join(parts) + "\n"


def _head(reports: dict[str, Report]) -> str:
    lines = [
        f"- Tier {tier}: {ENGINES[tier]}. Seeds {report['seeds']}, {report['seconds']:.0f} s on "
        f"{report['machine']['cpus']} CPUs{_quick(report)}."
        for tier, report in reports.items()
    ]
    return (
        "# Predictors that learn\n\nWritten by `governor eval document` from "
        "`benchmarks/results/predictors-{S,E,C}.json` (`governor eval predictors --tier ... "
        "--json ...`).\n\n" + "\n".join(lines) + "\n\n"
        "No figure here was measured on a GPU. Errors are mean |predicted / measured - 1|, of "
        "regimes (powers of two of rows and of summed context) that no model had seen unless it "
        "says otherwise; the measurements carry their noise. Figures at a glance are the worst "
        "over all cells, of the family that `governor fit` chooses by itself from what it may "
        "learn from."
    )


def _quick(report: Report) -> str:
    return ", a quick run" if report["arguments"].get("quick") else ""


def _glance(reports: dict[str, Report]) -> str:
    rows = [
        (
            "step error, held-out regimes",
            " / ".join(f"{tier}: {STEP_AIM[tier]:g} %" for tier in reports),
            *(_percent(report["step_mape"]) for report in reports.values()),
        ),
        (
            "the measurements themselves, against the truth",
            "",
            *(_percent(one["measured_mape"]) for one in reports.values()),
        ),
        (
            "step error, linear, held-out regimes",
            "",
            *(_percent(one["linear_step_mape"]) for one in reports.values()),
        ),
        (
            "steps within their predicted 90th percentile",
            "88-92 %",
            *(_percent(one["step_p90_coverage"]) for one in reports.values()),
        ),
        (
            "error of externalities where the cost is not linear (C: between measured steps)",
            "",
            *(_percent(one["externality_error"]) for one in reports.values()),
        ),
        (
            "times smaller than the linear model's, least",
            "2",
            *(_times(one["externality_times_better"]) for one in reports.values()),
        ),
        (
            "steps to recover, slowest",
            "200",
            *(_count(one, one["recovery_steps"]) for one in reports.values()),
        ),
        (
            "asking about 1 / 8 / 64 candidates, slowest, us",
            "",
            *(
                " / ".join(f"{value:.1f}" for value in one["predict_us"].values())
                for one in reports.values()
            ),
        ),
    ]
    head = ("figure", "aim", *(f"tier {tier}" for tier in reports))
    return "## At a glance\n\n" + table(head, rows)


def _steps(tier: str, report: Report) -> str:
    names = [model["model"] for model in report["cells"][0]["judged"]["figures"]]
    rows, coverage = [], []
    for cell in report["cells"]:
        judged = cell["judged"]
        label = (cell["name"], str(cell["seed"]), f"`{judged['chosen']}`")
        by_name = {model["model"]: model for model in judged["figures"]}
        rows.append((*label, *(_pair(by_name[name]) for name in names)))
        coverage.append(
            (*label, *(_percent(by_name[name]["held_samples"]["p90_coverage"]) for name in names))
        )
    head = ("engine, steps learnt from", "seed", "chosen", *(f"`{name}`" for name in names))
    return (
        f"## Steps, tier {tier}\n\nError on held-out regimes, and on held-out samples of regimes "
        "that were learnt from:\n\n"
        + table(head, rows)
        + "\n\nShare of held-out steps within their predicted 90th percentile:\n\n"
        + table(head, coverage)
    )


def _externalities(report: Report) -> str:
    cells = [cell for cell in report["cells"] if cell["is_bent"]]
    names = [model["model"] for model in cells[0]["judged"]["figures"]]
    rows = []
    for cell in cells:
        by_name = {model["model"]: model["externality"] for model in cell["judged"]["figures"]}
        for place in by_name[LINEAR]:
            rows.append(
                (
                    cell["name"],
                    str(cell["seed"]),
                    place,
                    *(_percent(by_name[name][place]) for name in names),
                )
            )
    return (
        "### Cost of added rows\n\nSum of |predicted - true| over the sum of true externalities of "
        "1, 2, 4 and 8 rows of 256 and 2048 tokens, added to held-out batches. "
        f"`{EVERYWHERE}` is for comparison; the figures at a glance are of the other places.\n\n"
        + table(("engine, steps learnt from", "seed", "place", *(f"`{n}`" for n in names)), rows)
    )


def _recoveries(report: Report) -> str:
    grouped: dict[tuple[Any, ...], dict[str, list[Report]]] = {}
    for one in report["recovery"]:
        task = one["task"]
        key = (task["profile"], task["changes"], task["factor"], task["load"])
        grouped.setdefault(key, {}).setdefault(one["predictor"], []).append(one)
    names = list(dict.fromkeys(name for found in grouped.values() for name in found))
    rows = [
        (
            profile,
            f"{changes} x {factor:g}, {load:g} users",
            *(_recovered(found.get(name, [])) for name in names),
        )
        for (profile, changes, factor, load), found in grouped.items()
    ]
    task = report["recovery"][0]["task"]
    return (
        f"### Recovery\n\nPolicy `{task['policy']}`, TPOT target {task['slo_ms']:g} ms. In the "
        "middle of a run either every step takes so many times as long from then on, or the "
        "predictor's base predicts so many times as much. Steps until the median error of the last "
        "16 steps is below 5 % / until the share of tokens on time over the last 64 steps is "
        "within 2 points of a run whose predictor is right all along, each to stay for 200 "
        "steps; slowest seed; - for not within the run.\n\n"
        + table(("engine", "change", *(f"`{name}`" for name in names)), rows)
    )


def _recovered(found: list[Report]) -> str:
    def slowest(key: str) -> str:
        steps = [one[key] for one in found]
        return "-" if not steps or None in steps else str(max(steps))

    return f"{slowest('error_steps')} / {slowest('attainment_steps')}"


def _asking(report: Report) -> str:
    rows = [
        (f"`{name}`", *(f"{mine[size]:.1f}" for size in report["predict_us"]),
         f"{mine['vs_linear']:.2f} x")
        for name, mine in report["predict_us_by_model"].items()
    ]  # fmt: skip
    return (
        "### What it costs to ask\n\nOne call about 1, 8 and 64 candidates, online correction "
        "included; the largest ratio to the straight line of `published`.\n\n"
        + table(
            ("model", *(f"{size}, us" for size in report["predict_us"]), "over a straight line"),
            rows,
        )
    )


def _plots(tier: str, report: Report) -> str:
    absent = set()
    if not report["recovery"]:
        absent.add("recovery")
    if not any(cell["is_bent"] for cell in report["cells"]):
        absent.add("externality")
    shown = shown_cell(report)
    return (
        f"### Plots, tier {tier}\n\nSingle steps and regimes are those of {shown['name']}, seed "
        f"{shown['seed']}.\n\n"
        + "\n\n".join(
            f"![{title}](plots/predictors/{tier}/{name}.png)"
            for name, title in PLOTS.items()
            if name not in absent
        )
    )


def _pair(model: Report) -> str:
    return f"{_percent(model['held_regimes']['mape'])} / {_percent(model['held_samples']['mape'])}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.1f} x"


def _count(report: Report, steps: int | None) -> str:
    if not report["recovery"]:
        return "-"
    return "not within the run" if steps is None else str(steps)
