"""The section on tier C of ``docs/results/speculation.md``; no figure is typed by hand."""

from __future__ import annotations

from typing import Any

from governor_bench.eval.speculation.cpu.plan import CONTENDERS
from governor_bench.eval.speculation.plan import FIXED, TABLE, TURBOSPEC
from governor_bench.eval.tables import percent, table

RESULT_FILE = "speculation-C.json"
COMMAND = "governor eval speculation --tier C"
PLOT = "computed.png"

Report = dict[str, Any]


def section(report: Report) -> str:
    """The section's text."""
    plot = f"![Real SGLang, computing on the CPU](plots/speculation/{PLOT})"
    parts = [_head(report), _glance(report), _grid(report), _accepted(report), _others(report)]
    if report["trees"]:
        parts.append(_trees(report))
    return "\n\n".join((*parts, plot))


def _head(report: Report) -> str:
    arguments, texts = report["arguments"], report["texts"]
    quick = ", a quick run" if arguments["quick"] else ""
    return (
        "## On real SGLang that computes\n\nTier C: stock SGLang over HTTP with a real controller, "
        "on the [reference CPU platform](../speculation-cpu.md#governed), with a small model and "
        "an EAGLE head that were trained for it (`governor eval speculation --tier C --json ...`, "
        f"`benchmarks/results/{RESULT_FILE}`). Acceptance and times are real, and those of this "
        "machine: on a GPU drafts cost otherwise.\n\n"
        f"- One engine for all runs; the policy changes between them. {arguments['rounds']} "
        f"rounds, {arguments['runs']} runs in {report['seconds']:.0f} s on "
        f"{report['machine']['cpus']} CPUs{quick}. In each round every policy meets the same "
        "requests, one policy after the other; the order rotates. Figures are medians over rounds. "
        "Between a policy's slowest and fastest round in a cell lie "
        f"{percent(report['spread_median'])} of its figure (median); the best of several fixed "
        "lengths is partly the luckiest.\n"
        f"- Greedy tokens of {report['compared_requests']} requests were compared with those of no "
        f"drafts in the same round: {report['token_mismatches']} differ.\n"
        f"- Texts were continued once under `{texts['sorted_under']}` and sorted. The best fifth "
        f"({texts['accept_length_well']:.2f} tokens a step) is what is drafted well, the worst "
        f"({texts['accept_length_badly']:.2f}) what is drafted badly.\n"
        "- `sglang adaptive` is SGLang's own rule at work in the engine, in its own tiers by batch "
        "size; the other lengths stand in a tier that no batch reaches. It learns from the steps "
        "that it chose alone, and keeps that from turn to turn.\n"
        f"- `{TABLE}` is tuned on runs of the fixed lengths before the first round, which no "
        "figure comes from. They train the predictor too.\n"
        f"- At worst {percent(report['late_share'])} of a run's steps had no fresh decision "
        f"({percent(report['late_share_median'])}, median).\n"
        f"- {report['tree_vs_local_note']}\n\n"
        f"Workload: {report['workload']}. Tokens per second of a closed loop by Little's law."
    )


def _glance(report: Report) -> str:
    rows: list[tuple[str, str]] = [
        ("worst cell, against the best fixed length of that cell", "worst_cell_vs_best_fixed"),
        (f"best single fixed length ({report['best_single_fixed']})", "vs_best_single_fixed"),
        ("SGLang's own adaptive", "vs_sglang_adaptive"),
        (f"tuned table by batch size (`{report['batch_table']}`)", "vs_batch_table"),
    ]
    if report["trees"]:
        rows.append(("global against local trees, equal budgets", "tree_vs_local"))
        rows.append(("the same, worst cell", "tree_vs_local_worst"))
    return f"`{report['policy']}` against ..., geometric means over the cells:\n\n" + table(
        ("against", "ratio"), [(against, f"{report[key]:.3f}") for against, key in rows]
    )


def names_of(report: Report) -> list[str]:
    """Policies that were run, in the order of the plan."""
    run = {one["name"] for one in report["cells"][0]["figures"]}
    names = [*(one.name for one in CONTENDERS[:-1]), TABLE, TURBOSPEC.name]
    return [name for name in names if name in run]


def _grid(report: Report) -> str:
    names = names_of(report)
    fixed = {one.name for one in FIXED}
    rows = []
    for cell in report["cells"]:
        found = {one["name"]: one for one in cell["figures"]}
        best = max(one["tokens_per_s"] for name, one in found.items() if name in fixed)
        low, high = found[TURBOSPEC.name]["tokens_range"]
        rows.append(
            (
                str(cell["load"]),
                cell["text"],
                *(f"{found[name]['tokens_per_s']:.0f}" for name in names),
                f"{low:.0f}-{high:.0f}",
                f"{found[TURBOSPEC.name]['tokens_per_s'] / best:.3f}",
            )
        )
    head = ("users", "text", *names, "turbospec, range", "over best fixed")
    return "Tokens per second:\n\n" + table(head, rows)


def _accepted(report: Report) -> str:
    names = [name for name in names_of(report) if name != FIXED[0].name]
    rows = [
        (
            str(cell["load"]),
            cell["text"],
            *(f"{cell['accept_length'][name]:.2f}" for name in names),
        )
        for cell in report["cells"]
    ]
    return "Accept length, tokens a row and step:\n\n" + table(("users", "text", *names), rows)


def _others(report: Report) -> str:
    rows = [
        (name, f"{found['worst_cell_vs_best_fixed']:.3f}", f"{found['vs_best_single_fixed']:.3f}")
        for name, found in report["other_policies"].items()
    ]
    return "Other policies:\n\n" + table(
        ("policy", "worst cell, over its best fixed", "over the best single fixed"), rows
    )


def _trees(report: Report) -> str:
    names = [one["name"] for one in report["trees"][0]["figures"]]
    rows = []
    for cell in report["trees"]:
        found = {one["name"]: one["tokens_per_s"] for one in cell["figures"]}
        rows.append((str(cell["load"]), cell["text"], *(f"{found[name]:.0f}" for name in names)))
    return (
        "Trees, tokens per second. `local N`: every row its own likeliest N nodes; `global N`: N "
        "nodes a row on average, over all rows together. Which nodes, the engine decides in both, "
        "by its draft's chances. `global N` spends them, whatever they are worth; `local N` leaves "
        "some over where a shallower tree, which has fewer, pays better (here at N = 4):\n\n"
        + table(("users", "text", *names), rows)
    )
