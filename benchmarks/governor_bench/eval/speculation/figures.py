"""From outcomes to cells and headline figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import geometric_mean, median
from typing import Any

import msgspec

from governor_bench.eval.speculation.baselines import Table
from governor_bench.eval.speculation.plan import (
    BUDGETS,
    CANDIDATES,
    FIXED,
    FIXED_LENGTHS,
    PORTABLE,
    PUBLISHED,
    SGLANG,
    TABLE,
    TURBOSPEC,
    Contender,
)
from governor_bench.eval.speculation.setting import Outcome

Place = tuple[float, float, float]
"""Load, level, the level that it shifts to (the level itself if it does not)."""


class Figure(msgspec.Struct, frozen=True):
    """One policy in one cell: medians over seeds, and the range of what counts."""

    name: str
    policy: str
    tokens_per_s: float
    tokens_range: tuple[float, float]
    goodput_tok_s: float
    goodput_range: tuple[float, float]
    tight_attainment: float | None
    tight_tpot_ms: float | None
    rows: float
    draft_tokens_per_row: float
    accepted_per_row: float
    length: float
    step_ms: float


class Cell(msgspec.Struct, frozen=True):
    """All policies at one place of the grid."""

    load: int
    level: float
    other_level: float | None
    figures: list[Figure]

    def value(self, name: str) -> float | None:
        """Tokens per second of a policy; None if it was not run."""
        return next((one.tokens_per_s for one in self.figures if one.name == name), None)


def cells_of(pairs: Iterable[tuple[Contender, Outcome]]) -> list[Cell]:
    """Group runs by place and policy, over seeds."""
    grouped: dict[tuple[int, float, float | None], dict[str, list[Outcome]]] = {}
    policies: dict[str, str] = {}
    for contender, outcome in pairs:
        setting = outcome.setting
        place = (setting.load, setting.level, setting.other_level)
        grouped.setdefault(place, {}).setdefault(contender.name, []).append(outcome)
        policies[contender.name] = setting.policy
    return [
        Cell(*place, [_figure(name, policies[name], runs) for name, runs in found.items()])
        for place, found in grouped.items()
    ]


def _figure(name: str, policy: str, runs: Sequence[Outcome]) -> Figure:
    def middle(field: str) -> float:
        return float(median(getattr(run, field) for run in runs))

    tokens = [run.tokens_per_s for run in runs]
    goodput = [run.goodput_tok_s for run in runs]
    tight = [run for run in runs if run.tight_attainment is not None]
    return Figure(
        name=name,
        policy=policy,
        tokens_per_s=median(tokens),
        tokens_range=(min(tokens), max(tokens)),
        goodput_tok_s=median(goodput),
        goodput_range=(min(goodput), max(goodput)),
        tight_attainment=median(run.tight_attainment or 0.0 for run in tight) if tight else None,
        tight_tpot_ms=median(run.tight_tpot_ms or 0.0 for run in tight) if tight else None,
        **{
            field: middle(field)
            for field in ("rows", "draft_tokens_per_row", "accepted_per_row", "length", "step_ms")
        },
    )


def tuned_table(cells: Sequence[Cell]) -> Table:
    """For each load, the fixed length that does best over its steady cells."""
    by_load: dict[float, int] = {}
    lengths = dict(zip((one.name for one in FIXED), FIXED_LENGTHS, strict=True))
    for load in sorted({cell.load for cell in cells}):
        mine = [cell for cell in cells if cell.load == load and cell.other_level is None]
        by_load[load] = lengths[best_single(mine)]
    return Table(by_load)


def best_fixed(cell: Cell) -> tuple[str, float]:
    """The fixed length that does best in this cell: an oracle."""
    return max(((name, _of(cell, name)) for name in fixed_run(cell)), key=lambda pair: pair[1])


def best_single(cells: Sequence[Cell]) -> str:
    """The fixed length that does best over all cells."""
    return max(
        fixed_run(cells[0]), key=lambda name: geometric_mean([_of(cell, name) for cell in cells])
    )


def fixed_run(cell: Cell) -> list[str]:
    """The fixed lengths that were run in a cell."""
    return [one.name for one in FIXED if cell.value(one.name) is not None]


def headline(main: Sequence[Cell], trees: Sequence[Cell]) -> dict[str, Any]:
    """Figures of ``turbospec``; means over the grid are geometric. None for what was not run."""
    single = best_single(main)
    others = {
        one.name: over_cells(main, one.name)
        for one in (PUBLISHED, CANDIDATES, PORTABLE)
        if main[0].value(one.name) is not None
    }
    ratios = tree_ratios(trees)
    return {
        "policy": TURBOSPEC.policy,
        "worst_cell_vs_best_fixed": over_cells(main, TURBOSPEC.name)[0],
        "best_single_fixed": single,
        "vs_best_single_fixed": ratio(main, TURBOSPEC.name, single),
        "vs_sglang_adaptive": ratio(main, TURBOSPEC.name, SGLANG.name),
        "vs_batch_table": ratio(main, TURBOSPEC.name, TABLE),
        "tree_vs_local": geometric_mean(list(ratios.values())) if ratios else None,
        "tree_vs_local_worst": min(ratios.values(), default=None),
        "tree_vs_local_cells": ratios,
        "other_policies": {
            name: dict(zip(("worst_cell_vs_best_fixed", "vs_best_single_fixed"), pair, strict=True))
            for name, pair in others.items()
        },
    }  # fmt: skip


def over_cells(main: Sequence[Cell], name: str) -> tuple[float, float]:
    """A policy against the best fixed length of its worst cell, and against the best single one."""
    worst = min(_of(cell, name) / best_fixed(cell)[1] for cell in main)
    return worst, ratio(main, name, best_single(main))


def ratio(cells: Sequence[Cell], name: str, other: str) -> float:
    """Geometric mean over cells of one policy over another."""
    return geometric_mean([_of(cell, name) / _of(cell, other) for cell in cells])


def tree_ratios(trees: Sequence[Cell]) -> dict[str, float]:
    """Global over local trees at each budget and place."""
    found = {}
    for cell in trees:
        for budget in BUDGETS:
            shared, own = cell.value(f"global {budget}"), cell.value(f"local {budget}")
            if shared and own:
                found[f"load {cell.load}, level {cell.level:g}, {budget} nodes a row"] = (
                    shared / own
                )
    return found


def _of(cell: Cell, name: str) -> float:
    value = cell.value(name)
    if value is None:
        raise KeyError(f"{name!r} was not run at load {cell.load}, level {cell.level:g}")
    return value
