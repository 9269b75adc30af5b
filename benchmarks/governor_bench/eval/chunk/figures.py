"""From outcomes to cells and headline figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import geometric_mean, median
from typing import Any

import msgspec

from governor_bench.eval.chunk.plan import ADAPTIVE, DEFAULT, FIXED, Contender, Place
from governor_bench.eval.chunk.setting import Outcome
from governor_bench.eval.chunk.shapes import LONG_BURSTS

MET = 0.99
"""Attainment from which on a budget meets the TTFT target of a cell."""

MEASURED = (
    "judged",
    "unfinished",
    "tpot_ms",
    "tpot_p99_ms",
    "ttft_attainment",
    "ttft_p50_s",
    "ttft_p99_s",
    "short_ttft_p50_s",
    "short_ttft_p99_s",
    "short_tpot_ms",
    "throughput_tok_s",
    "longest_wait_s",
    "prefill_tokens_per_step",
    "late_share",
)


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One contender in one cell: medians over seeds, and the range of what counts. Fields as in
    :class:`..setting.Outcome`."""

    name: str
    tpot_range_ms: tuple[float, float]
    attainment_range: tuple[float, float]
    judged: float
    unfinished: float
    tpot_ms: float
    tpot_p99_ms: float
    ttft_attainment: float
    ttft_p50_s: float
    ttft_p99_s: float
    short_ttft_p50_s: float
    short_ttft_p99_s: float
    short_tpot_ms: float
    throughput_tok_s: float
    longest_wait_s: float
    prefill_tokens_per_step: float
    late_share: float

    @property
    def meets(self) -> bool:
        return self.ttft_attainment >= MET


class Cell(msgspec.Struct, frozen=True):
    """All contenders at one place."""

    shape: str
    schedule: str
    share: float
    target_factor: float
    rate_per_s: float
    figures: list[Figure]

    def of(self, name: str) -> Figure:
        """
        Raises:
            KeyError: it was not run here.
        """
        for figure in self.figures:
            if figure.name == name:
                return figure
        raise KeyError(f"{name!r} was not run under {self.shape}, load {self.share:g}")

    @property
    def fixed(self) -> list[Figure]:
        """The fixed budgets that were run here."""
        names = {one.name for one in FIXED}
        return [figure for figure in self.figures if figure.name in names]

    @property
    def best_fixed(self) -> Figure | None:
        """Of the fixed budgets that meet the target, the one with the lowest TPOT; None if none
        does."""
        return min(
            (figure for figure in self.fixed if figure.meets),
            key=lambda figure: figure.tpot_ms,
            default=None,
        )


def cells_of(runs: Iterable[tuple[Place, Contender, Outcome]]) -> list[Cell]:
    """Group runs by place and contender, over seeds."""
    grouped: dict[Place, dict[str, list[Outcome]]] = {}
    for place, contender, outcome in runs:
        grouped.setdefault(place, {}).setdefault(contender.name, []).append(outcome)
    return [
        Cell(
            *place,
            next(iter(found.values()))[0].setting.rate_per_s,
            [_figure(name, outcomes) for name, outcomes in found.items()],
        )
        for place, found in grouped.items()
    ]


def _figure(name: str, outcomes: Sequence[Outcome]) -> Figure:
    tpot_ms = [outcome.tpot_ms for outcome in outcomes]
    attainment = [outcome.ttft_attainment for outcome in outcomes]
    return Figure(
        name=name,
        tpot_range_ms=(min(tpot_ms), max(tpot_ms)),
        attainment_range=(min(attainment), max(attainment)),
        **{
            field: float(median(getattr(outcome, field) for outcome in outcomes))
            for field in MEASURED
        },
    )


def headline(cells: Sequence[Cell]) -> dict[str, Any]:
    """Figures of ``adaptive_chunk``, each the worst over the cells that it names; None where there
    are no such cells."""
    met = [cell for cell in cells if cell.best_fixed is not None]
    bursts = [cell for cell in cells if cell.shape == LONG_BURSTS.name]
    ratios = [_tpot_ratio(cell, best.name) for cell in met if (best := cell.best_fixed)]
    singles = best_singles(cells)
    return {
        "policy": ADAPTIVE.policy,
        "tpot_vs_best_fixed_meeting_ttft": max(ratios, default=None),
        "tpot_vs_best_fixed_meeting_ttft_mean": geometric_mean(ratios) if ratios else None,
        "ttft_attainment": min((_ours(cell).ttft_attainment for cell in met), default=None),
        "cells_where_a_fixed_meets": len(met),
        "vs_default_tpot": max((_tpot_ratio(cell, DEFAULT.name) for cell in cells), default=None),
        "vs_default_tpot_mean": geometric_mean([_tpot_ratio(cell, DEFAULT.name) for cell in cells]),
        "vs_default_ttft_p99": min(
            (
                cell.of(DEFAULT.name).short_ttft_p99_s / _ours(cell).short_ttft_p99_s
                for cell in bursts
            ),
            default=None,
        ),
        "burst_throughput_vs_default": min(
            (
                _ours(cell).throughput_tok_s / cell.of(DEFAULT.name).throughput_tok_s
                for cell in bursts
            ),
            default=None,
        ),
        "best_single_fixed": {schedule: one["name"] for schedule, one in singles.items()},
        "vs_best_single_fixed": max((one["tpot"] for one in singles.values()), default=None),
        "vs_best_single_fixed_by_schedule": singles,
        "longest_wait_s": max(_ours(cell).longest_wait_s for cell in cells),
    }


def best_singles(cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """For each schedule the one fixed budget that meets the target in most cells; of those alike,
    the one with the lowest TPOT. ``tpot`` is ours over its, a geometric mean over the cells where
    it meets the target."""
    found = {}
    for schedule in dict.fromkeys(cell.schedule for cell in cells):
        mine = [cell for cell in cells if cell.schedule == schedule]
        name = min(
            (figure.name for figure in mine[0].fixed),
            key=lambda name: (
                -sum(cell.of(name).meets for cell in mine),
                geometric_mean([cell.of(name).tpot_ms for cell in mine]),
            ),
        )
        there = [cell for cell in mine if cell.of(name).meets]
        if there:
            found[schedule] = {
                "name": name,
                "cells": len(there),
                "of_cells": len(mine),
                "ours_meets_in": sum(_ours(cell).meets for cell in mine),
                "tpot": geometric_mean([_tpot_ratio(cell, name) for cell in there]),
                "tpot_worst": max(_tpot_ratio(cell, name) for cell in there),
            }
    return found


def _ours(cell: Cell) -> Figure:
    return cell.of(ADAPTIVE.name)


def _tpot_ratio(cell: Cell, name: str) -> float:
    return _ours(cell).tpot_ms / cell.of(name).tpot_ms
