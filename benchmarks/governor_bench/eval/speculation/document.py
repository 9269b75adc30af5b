"""Writes ``docs/results/speculation.md`` from the result file; no figure is typed by hand."""

from __future__ import annotations

from pathlib import Path
from statistics import geometric_mean
from typing import Any

from governor_bench.eval.result_files import read_report
from governor_bench.eval.speculation import emulated_section
from governor_bench.eval.speculation.cpu import section as cpu_section
from governor_bench.eval.speculation.plan import (
    FIXED,
    MAIN,
    SGLANG,
    TABLE,
    TREE_SPREAD,
    TURBOSPEC,
)
from governor_bench.eval.speculation.plots import place_of, plot_all, plot_computed
from governor_bench.eval.speculation.setting import (
    BURST_SHARE,
    DRIFT,
    LENGTHS,
    SPREAD,
    TIGHT_MS,
    TREE_NODES,
    TREE_WIDTH,
    Setting,
)
from governor_bench.eval.tables import percent, table

RESULT_FILE = "speculation-S.json"
PLOTS = {
    "grid": "Tokens per second over no drafts",
    "lengths": "What turbospec drafts",
    "trees": "Trees",
    "targets": "Targets",
}

Report = dict[str, Any]


def write(results: Path, target: Path) -> None:
    """Write the document to ``target`` and its plots beside it; sections on tiers E and C if there
    are results of them.

    Raises:
        FileNotFoundError: there is no result file; says which command writes one.
    """
    text = compose(results)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    plots = target.parent / "plots" / "speculation"
    plot_all(read(results), plots)
    computed = results / cpu_section.RESULT_FILE
    if computed.exists():
        plot_computed(read_report(computed, cpu_section.COMMAND), plots / cpu_section.PLOT)


def read(results: Path) -> Report:
    """
    Raises:
        FileNotFoundError: see :func:`write`.
    """
    return read_report(results / RESULT_FILE, "governor eval speculation --tier S")


def compose(results: Path) -> str:
    """The document's text.

    Raises:
        FileNotFoundError: see :func:`write`.
    """
    report = read(results)
    emulated = results / emulated_section.RESULT_FILE
    computed = results / cpu_section.RESULT_FILE
    parts = [
        _head(report),
        _glance(report),
        _grid(report),
        _others(report),
        _trees(report),
        _targets(report),
        *(
            [emulated_section.section(read_report(emulated, emulated_section.COMMAND))]
            if emulated.exists()
            else []
        ),
        *(
            [cpu_section.section(read_report(computed, cpu_section.COMMAND))]
            if computed.exists()
            else []
        ),
        "## Plots\n\n"
        + "\n\n".join(f"![{title}](plots/speculation/{name}.png)" for name, title in PLOTS.items()),
    ]
    return "\n\n".join(parts) + "\n"


def _head(report: Report) -> str:
    quick = ", a quick run" if report["arguments"].get("quick") else ""
    profile = Setting(1, 0.5, "", 1).profile
    return (
        "# Speculation: how much to draft\n\nWritten by `governor eval document` from "
        f"`benchmarks/results/{RESULT_FILE}` (`governor eval speculation --tier S --json ...`).\n\n"
        f"- Tier S: the simulator with the profile `{profile}`, which models steps and drafting; "
        "nothing here was measured on a GPU. "
        f"Seeds {report['seeds']}, {report['seconds']:.0f} s on {report['machine']['cpus']} CPUs"
        f"{quick}.\n"
        "- Acceptance is synthetic. It is drawn for each position of each output before anything "
        f"runs, so that all policies meet the same luck: a level for each request (sd {SPREAD:g} "
        f"between requests unless it says otherwise) that wanders by {DRIFT:g} in log-odds, and "
        f"stretches of hard text ({BURST_SHARE:.0%} of the output). The r-th choice of a draft is "
        "right with chance a (1 - a)^(r-1).\n"
        f"- Draft lengths {', '.join(map(str, LENGTHS))}. Unless it says otherwise each row pays "
        "for its own draft when it is verified, as on an engine with a ragged worker.\n"
        "- `turbospec` leaves it to the engine which tokens are verified, up to a budget and above "
        "a price; the engine goes by its draft's own chances, which are taken to be right.\n"
        "- Figures are tokens per second of a closed loop by Little's law, over the same requests "
        "under every policy; medians over seeds.\n\n"
        f"Workload of the first cell: {report['workload']}"
    )


def _glance(report: Report) -> str:
    rows = [
        (
            "worst cell, against the best fixed length of that cell",
            "0.97",
            "worst_cell_vs_best_fixed",
        ),
        (
            f"best single fixed length ({report['best_single_fixed']})",
            "1.10",
            "vs_best_single_fixed",
        ),
        ("SGLang's own adaptive", "1.10", "vs_sglang_adaptive"),
        (f"tuned table by batch size (`{report['batch_table']}`)", "1.10", "vs_batch_table"),
        ("global against local trees, equal budgets", "1.05", "tree_vs_local"),
        ("the same, worst cell", "", "tree_vs_local_worst"),
    ]
    return (
        f"## At a glance\n\n`{report['policy']}` against ..., geometric means over the grid:\n\n"
        + table(
            ("against", "aim", "ratio"), [(a, aim, f"{report[key]:.3f}") for a, aim, key in rows]
        )
        + f"\n\nThe best fixed length of each cell, an oracle, is {_oracle(report):.3f} times the "
        "tuned table: the table, too, was chosen on these cells."
    )


def _oracle(report: Report) -> float:
    """Geometric mean over the grid of each cell's best fixed length over the table."""
    ratios = []
    for cell in report["cells"]:
        found = {one["name"]: one["tokens_per_s"] for one in cell["figures"]}
        ratios.append(max(found[one.name] for one in FIXED) / found[TABLE])
    return geometric_mean(ratios)


def _grid(report: Report) -> str:
    names = [one.name for one in MAIN] + [TABLE]
    fixed = [one.name for one in FIXED]
    rows = []
    for cell in report["cells"]:
        found = {one["name"]: one for one in cell["figures"]}
        best = max(found[name]["tokens_per_s"] for name in fixed)
        low, high = found[TURBOSPEC.name]["tokens_range"]
        rows.append(
            (
                str(cell["load"]),
                place_of(cell).removeprefix("acceptance "),
                *(f"{found[name]['tokens_per_s']:.0f}" for name in names),
                f"{low:.0f}-{high:.0f}",
                f"{found[TURBOSPEC.name]['tokens_per_s'] / best:.3f}",
            )
        )
    head = ("users", "acceptance", *names, "turbospec, range", "over best fixed")
    return "## Grid\n\nTokens per second.\n\n" + table(head, rows)


def _others(report: Report) -> str:
    rows = [
        (name, f"{found['worst_cell_vs_best_fixed']:.3f}", f"{found['vs_best_single_fixed']:.3f}")
        for name, found in report["other_policies"].items()
    ]
    notes = "\n".join(
        f"- {one.name}: {one.note}" for one in (*MAIN, SGLANG)[: len(MAIN)] if one.note
    )
    return (
        "## Other policies\n\n"
        + table(("policy", "worst cell, over its best fixed", "over the best single fixed"), rows)
        + "\n\n"
        + notes
    )


def _trees(report: Report) -> str:
    names = [one["name"] for one in report["trees"][0]["figures"]]
    rows = []
    for cell in report["trees"]:
        found = {one["name"]: one for one in cell["figures"]}
        rows.append(
            (
                str(cell["load"]),
                f"{cell['level']:g}",
                *(f"{found[name]['tokens_per_s']:.0f}" for name in names),
            )
        )
    return (
        f"## Trees\n\nAn engine that drafts trees, {TREE_WIDTH} choices a position and up to "
        f"{TREE_NODES} nodes a row. Requests differ with sd {TREE_SPREAD:g}. `local N`: every row "
        "has its own best N nodes; `global N`: N nodes a row on average, spent over all rows by "
        "the draft's own chances, which are taken to be right; `draft_tree` chooses the budget. "
        "Tokens per second.\n\n" + table(("users", "acceptance", *names), rows)
    )


def _targets(report: Report) -> str:
    rows = [
        (
            str(cell["load"]),
            one["name"],
            f"{one['tokens_per_s']:.0f}",
            f"{one['goodput_tok_s']:.0f}",
            percent(one["tight_attainment"]),
            f"{one['tight_tpot_ms']:.1f}",
        )
        for cell in report["targets"]
        for one in cell["figures"]
    ]
    return f"## Targets\n\nHalf the users are promised {TIGHT_MS:g} ms a token.\n\n" + table(
        ("users", "policy", "tok/s", "goodput", "attainment", "TPOT of those with a target, ms"),
        rows,
    )
