"""Tier C of ``governor eval speculation``: runs the plan, compares tokens, writes the report."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import msgspec
from rich.progress import Progress

from governor_bench.envelope import Stopwatch, envelope
from governor_bench.eval.speculation import figures
from governor_bench.eval.speculation.cpu import plan
from governor_bench.eval.speculation.cpu.rig import (
    CHAINS,
    SORTED_UNDER,
    TREES,
    CpuRig,
    Run,
    cpu_rig,
)
from governor_bench.eval.speculation.cpu.texts import OUTPUT_TOKENS, PROMPT_TOKENS, Texts, name_of
from governor_bench.eval.speculation.figures import Cell
from governor_bench.eval.speculation.plan import FIXED, TABLE, Contender, Entries
from governor_bench.eval.speculation.run import pairs_of
from governor_bench.eval.speculation.setting import CPU, Setting

NO_TREES = "Chains alone; a run that is not quick has trees as well."
WITH_TREES = (
    "Global and local trees are compared on a second engine, half of whose text is drafted well."
)


def evaluate_on_cpu(rounds: Sequence[int], progress: Progress, *, quick: bool) -> dict[str, Any]:
    """Tier C: all chains on one engine, whose controller changes the policy between runs; unless
    ``quick``, trees on a second one.

    Args:
        rounds: their numbers are the seeds of their requests.

    Raises:
        RunFailed: a run was not served.
    """
    stopwatch = Stopwatch()
    rounds = list(rounds[:1] if quick else rounds)
    pilot = plan.pilot(quick=quick)
    untuned = (*plan.CONTENDERS, Contender(TABLE, "", CPU))
    tree_entries = [] if quick else [entry for number in rounds for entry in plan.trees(number)]
    tree_pilot = [] if quick else plan.trees(plan.PILOT_SEED)
    total = len(pilot) + len(plan.turn(1, untuned, quick=quick)) * len(rounds)
    total += len(tree_pilot) + len(tree_entries)
    task = progress.add_task("tier C", total=total)

    def stage(text: str) -> None:
        progress.update(task, description=text)

    def measured(rig: CpuRig, texts: Texts, entries: Entries, name: str) -> list[Run]:
        runs = []
        for contender, setting in entries:
            text = name_of(setting.level, setting.other_level)
            stage(f"{name}: {contender.name}, {setting.load} users, {text}")
            runs.append(rig.run(setting, texts))
            progress.advance(task)
        return runs

    with cpu_rig(stage, CHAINS) as rig:
        stage("sorting texts")
        texts = rig.sorted_texts(plan.QUICK_PROMPTS if quick else plan.MOST_PROMPTS)
        piloted = measured(rig, texts, pilot, "pilot")
        table = plan.by_rows(
            figures.tuned_table(figures.cells_of(pairs_of(pilot, [run.outcome for run in piloted])))
        )
        contenders = (*plan.CONTENDERS, Contender(TABLE, table.text(), CPU))
        entries = [
            entry for number in rounds for entry in plan.turn(number, contenders, quick=quick)
        ]
        runs = measured(rig, texts, entries, "chains")
    tree_runs: list[Run] = []
    if tree_entries:
        with cpu_rig(stage, TREES) as rig:
            measured(rig, texts, tree_pilot, "pilot of trees")
            tree_runs = measured(rig, texts, tree_entries, "trees")
    return {
        **report_of(entries, runs, tree_entries, tree_runs),
        "batch_table": table.text(),
        "texts": {
            "accept_length_well": texts.accept_well,
            "accept_length_badly": texts.accept_badly,
            "sorted_under": SORTED_UNDER,
        },
        **envelope(
            tier="C",
            seeds=rounds,
            arguments={"quick": quick, "rounds": len(rounds), "runs": total},
            stopwatch=stopwatch,
        ),
    }


def report_of(
    entries: Entries, runs: Sequence[Run], tree_entries: Entries, tree_runs: Sequence[Run]
) -> dict[str, Any]:
    """Headline figures and cells.

    Args:
        runs, tree_runs: of the entries, in their order; trees may be left out.
    """
    outcomes = [run.outcome for run in runs]
    cells = figures.cells_of(pairs_of(entries, outcomes))
    trees = figures.cells_of(pairs_of(tree_entries, [run.outcome for run in tree_runs]))
    compared, differ = token_mismatches(entries, runs)
    of_trees, differ_of_trees = token_mismatches(tree_entries, tree_runs)
    differ += differ_of_trees
    spreads = [
        (one.tokens_range[1] - one.tokens_range[0]) / one.tokens_per_s
        for cell in cells
        for one in cell.figures
    ]
    return {
        **figures.headline(cells, trees),
        "tree_vs_local_note": WITH_TREES if trees else NO_TREES,
        "token_mismatches": len(differ),
        "compared_requests": compared + of_trees,
        "mismatched": differ[:20],
        "cells": [_told(cell) for cell in cells],
        "trees": [_told(cell) for cell in trees],
        "spread_median": median(spreads),
        "late_share": max(outcome.late_share for outcome in outcomes),
        "late_share_median": median(outcome.late_share for outcome in outcomes),
        "workload": (
            f"closed loop; prompts of {PROMPT_TOKENS} tokens, outputs uniform, "
            f"{OUTPUT_TOKENS[0]}-{OUTPUT_TOKENS[1]} tokens, greedy, never ended early"
        ),
    }


def _told(cell: Cell) -> dict[str, Any]:
    return {
        **msgspec.to_builtins(cell),
        "text": name_of(cell.level, cell.other_level),
        "accept_length": {one.name: round(1.0 + one.accepted_per_row, 3) for one in cell.figures},
    }


def token_mismatches(entries: Entries, runs: Sequence[Run]) -> tuple[int, list[str]]:
    """Compare every request's tokens with those of the run of no drafts with the same requests.

    Returns:
        How many were compared, and in words which differ.
    """
    plain = {
        _requests_of(setting): run.outputs
        for (contender, setting), run in zip(entries, runs, strict=True)
        if contender.name == FIXED[0].name
    }
    compared, differ = 0, []
    for (contender, setting), run in zip(entries, runs, strict=True):
        wanted = plain[_requests_of(setting)]
        if contender.name == FIXED[0].name:
            continue
        for index in sorted(run.outputs.keys() & wanted.keys()):
            compared += 1
            if run.outputs[index] != wanted[index]:
                text = name_of(setting.level, setting.other_level)
                differ.append(
                    f"{contender.name}, {setting.load} users, {text}, round {setting.seed}, "
                    f"request {index}"
                )
    return compared, differ


def _requests_of(setting: Setting) -> tuple[Any, ...]:
    return setting.load, setting.level, setting.other_level, setting.seed
