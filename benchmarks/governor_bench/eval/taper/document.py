"""Writes ``docs/results/taper.md`` from the result files, so that no figure is typed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from governor_bench.eval.result_files import read_report
from governor_bench.eval.tables import percent, table
from governor_bench.eval.taper.figures import AIM_VS_EAGER, AIM_VS_OFF
from governor_bench.eval.taper.plan import PLUS, TAPER
from governor_bench.eval.taper.plots import plot_all
from governor_bench.eval.taper.sections import (
    alone_section,
    emulated_section,
    sensitivity_section,
    validation_section,
)
from governor_bench.eval.taper.tables import goodput

SIMULATED = "taper.json"
VALIDATION = "validation.json"
EMULATED = "taper_emulated.json"


PLOTS = ("curve", "sensitivity", "switches", "width")


def write(results: Path, target: Path) -> None:
    """Write the document to ``target`` and its plots beside it.

    Raises:
        FileNotFoundError: a result file is missing; names it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(compose(results))
    plot_all(
        read_report(results / SIMULATED, "governor eval taper --tier S"),
        target.parent / "plots" / "taper",
    )


def compose(results: Path) -> str:
    """The document's text.

    Raises:
        FileNotFoundError: a result file is missing; names it.
    """
    report = read_report(results / SIMULATED, "governor eval taper --tier S")
    validation = read_report(results / VALIDATION, "governor eval validate")
    emulated = (
        read_report(results / EMULATED, "governor eval taper --tier E")
        if (results / EMULATED).exists()
        else None
    )
    parts = [
        _head(report),
        _headline(report),
        _curve(report),
        validation_section(validation),
        *([emulated_section(emulated)] if emulated else []),
        alone_section(report),
        sensitivity_section(report),
        "## Plots\n\n" + "\n\n".join(f"![{name}](plots/taper/{name}.png)" for name in PLOTS),
        _workloads(report),
    ]
    return "\n\n".join(parts) + "\n"


def _head(report: dict[str, Any]) -> str:
    errors = report["validation"]
    beside = (
        "not validated"
        if errors is None
        else f"against real SGLang with emulated step times, {errors['settings']} settings: median "
        f"error of TPOT {errors['median_tpot_error_pct']:.1f} %, of goodput "
        f"{errors['median_goodput_error_pct']:.1f} %"
    )
    return (
        "# Branch admission: TAPER and what goes past it\n\n"
        "Written by `governor eval document` from `benchmarks/results/taper.json` (`governor eval "
        "taper --tier S --validation benchmarks/results/validation.json --json ...`), "
        "`validation.json` (`governor eval validate --json ...`) and, where it is there, "
        "`taper_emulated.json` (`governor eval taper --tier E --json ...`).\n\n"
        f"Tier S: the simulator ({beside}). Seeds {report['seeds']}; medians, and the range over "
        f"seeds in brackets; {report['arguments']['runs']} runs. No figure here was measured "
        "on a GPU: step times are those of a named profile."
    )


def _headline(report: dict[str, Any]) -> str:
    published = report["published"]
    better = report["worst_vs_better_of_off_and_eager"]
    rows = [
        (
            "goodput over off / over eager, attainment",
            f"{AIM_VS_OFF:.2f} x / {AIM_VS_EAGER:.2f} x, 95 %",
            _pair(report),
            _pair(published),
        ),
        ("worst goodput over the better of off and eager", "0.98 x", f"{better:.3f} x", ""),
        (
            "share of the gap to the clairvoyant bound that is closed, worst of the middle",
            "50 %",
            percent(report["gap_closed"]),
            "",
        ),
        (
            "goodput over published TAPER where targets differ / where the load shifts, worst (the bound there)",
            "1.10 x",
            " / ".join(
                f"{ratio:.2f} x ({report['bound_vs_published_by_case'][case]:.2f} x)"
                for case, ratio in report["improved_vs_published_by_case"].items()
            ),
            "",
        ),
    ]
    return (
        "## At a glance\n\n"
        + table(("figure", "aim", PLUS.name, f"{TAPER.name} (published)"), rows)
        + (
            "\n\nThe first row is the load where a policy comes closest to both ratios at once. They pull "
            "against each other: a closed loop keeps `off` below only while few users are there, and "
            "`eager` misses targets only once many are. Without variance and prefill, with a share q of the tokens "
            "in serial requests, a target S and a fixed step cost a, no admission policy can have more than "
            "(1/q)(a/S) + 1 - a/S over `off` at the load where `eager` starts to fail, nor more than "
            "1/(1-q) over `eager` there."
        )
    )


def _curve(report: dict[str, Any]) -> str:
    rows = report["curve"]
    names = list(rows[0]["policies"])
    head = ("users", *names, "best fixed width")
    body = [
        (
            f"{row['load']:g}",
            *(goodput(row["policies"][name]) for name in names),
            f"{row['best_fixed_width']['goodput_tok_s']:.0f} ({row['best_fixed_width']['name']})",
        )
        for row in rows
    ]
    attained = [
        (f"{row['load']:g}", *(percent(row["policies"][name]["attainment"]) for name in names), "")
        for row in rows
    ]
    victims = [
        (
            f"{row['load']:g}",
            *(f"{row['policies'][name]['victim_tpot_p95_ms']:.1f}" for name in names),
            "",
        )
        for row in rows
    ]
    first = next(iter(rows[0]["policies"].values()))
    return (
        f"## Over the load\n\n{first['profile']}, TPOT target {first['slo_ms']:g} ms.\n\n"
        "Goodput, tok/s:\n\n"
        + table(head, body)
        + "\n\nAttainment:\n\n"
        + table(head, attained)
        + "\n\nTPOT of serial requests that share steps with branches, p95, ms:\n\n"
        + table(head, victims)
        + "\n\n"
        + _where_it_does_not_pay(rows)
    )


def _where_it_does_not_pay(rows: Sequence[dict[str, Any]]) -> str:
    def ratio(row: dict[str, Any], name: str) -> float:
        return float(
            row["policies"][name]["goodput_tok_s"] / row["best_fixed_width"]["goodput_tok_s"]
        )

    lines = []
    for name in (TAPER.name, PLUS.name):
        below = [
            f"{row['load']:g} ({ratio(row, name):.2f} x)" for row in rows if ratio(row, name) < 1
        ]
        lines.append(
            f"`{name}` is below the best fixed width at: {', '.join(below) if below else 'no load'}."
        )
    return "Where governing does not pay: " + " ".join(lines)


def _workloads(report: dict[str, Any]) -> str:
    lines = [f"- `{name}`: {text}" for name, text in report["workloads"].items()]
    return (
        "## Workloads\n\nAs at the first load of each; users or rate follow the load.\n\n"
        + "\n".join(lines)
    )


def _pair(figures: dict[str, Any]) -> str:
    return (
        f"{figures['goodput_vs_off']:.2f} x / {figures['goodput_vs_eager']:.2f} x, "
        f"{percent(figures['attainment'])} ({figures['profile']}, {figures['slo_ms']:g} ms, "
        f"{figures['load']:g} users)"
    )
