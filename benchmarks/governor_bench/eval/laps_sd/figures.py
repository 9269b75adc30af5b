"""From outcomes to cells and headline figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import geometric_mean, mean, median
from typing import Any

import msgspec
import numpy as np

from governor_bench.eval.laps_sd.plan import (
    FIRST_COME,
    LEAST_ATTAINED,
    ORACLE,
    OURS,
    SHORTEST_JOB,
    Contender,
    Place,
)
from governor_bench.eval.laps_sd.setting import (
    LEAST_SHARE,
    MOST_SHARE,
    Estimates,
    Outcome,
)

MEASURED = (
    "judged",
    "unfinished",
    "mean_s",
    "p50_s",
    "p90_s",
    "p99_s",
    "longest_s",
    "ttft_s",
    "preemptions",
    "retractions",
    "rows",
    "late_share",
)


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One contender in one cell: medians over seeds, and the range of what counts. Fields as in
    :class:`..setting.Outcome`."""

    name: str
    mean_range_s: tuple[float, float]
    p99_range_s: tuple[float, float]
    latencies_s: list[float]
    estimates: Estimates | None
    judged: float
    unfinished: float
    mean_s: float
    p50_s: float
    p90_s: float
    p99_s: float
    longest_s: float
    ttft_s: float
    preemptions: float
    retractions: float
    rows: float
    late_share: float


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """All contenders at one place."""

    shape: str
    share: float
    speculates: bool
    cv: float
    places: int
    lengths: str
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

    def has(self, name: str) -> bool:
        return any(figure.name == name for figure in self.figures)


def cells_of(runs: Iterable[tuple[Place, Contender, Outcome]]) -> list[Cell]:
    """Group runs by place and contender, over seeds."""
    grouped: dict[Place, dict[str, list[Outcome]]] = {}
    for place, contender, outcome in runs:
        grouped.setdefault(place, {}).setdefault(contender.name, []).append(outcome)
    return [
        Cell(
            **place._asdict(),
            rate_per_s=next(iter(found.values()))[0].setting.rate_per_s,
            figures=[_figure(name, outcomes) for name, outcomes in found.items()],
        )
        for place, found in grouped.items()
    ]


def _figure(name: str, outcomes: Sequence[Outcome]) -> Figure:
    means = [outcome.mean_s for outcome in outcomes]
    p99 = [outcome.p99_s for outcome in outcomes]
    return Figure(
        name=name,
        mean_range_s=(min(means), max(means)),
        p99_range_s=(min(p99), max(p99)),
        latencies_s=np.median([outcome.latencies_s for outcome in outcomes], axis=0).tolist(),
        estimates=_estimates([outcome.estimates for outcome in outcomes]),
        **{
            field: float(median(getattr(outcome, field) for outcome in outcomes))
            for field in MEASURED
        },
    )


def _estimates(found: Sequence[Estimates | None]) -> Estimates | None:
    made = [one for one in found if one is not None and one.requests]
    if not made:
        return None
    return Estimates(
        sum(one.requests for one in made),
        *(
            float(median(getattr(one, field) for one in made))
            for field in ("seconds", "pace", "tokens", "after_tokens", "pace_bias")
        ),
    )


def headline(cells: Sequence[Cell]) -> dict[str, Any]:
    """Figures of ``laps_sd``, each the worst over the cells at loads that count; below 1 is better.
    None where a contender was not run."""
    counted = [cell for cell in cells if LEAST_SHARE <= cell.share <= MOST_SHARE]
    estimates = [found for cell in counted if (found := cell.of(OURS.name).estimates)]
    return {
        "policy": OURS.policy,
        "cells": len(counted),
        **{
            f"mean_latency_vs_{name}": _worst(counted, "mean_s", name)
            for name in (FIRST_COME.name, LEAST_ATTAINED.name, SHORTEST_JOB.name)
        },
        "mean_latency_vs_better_of_las_and_sjf": max(
            (ratio for cell in counted for ratio in _vs_better(cell)), default=None
        ),
        "gap_to_srpt": _gap(_worst(counted, "mean_s", ORACLE.name)),
        "p99_vs_fcfs": _worst(counted, "p99_s", FIRST_COME.name),
        "estimation_error": max((one.seconds for one in estimates), default=None),
        "estimation_error_of_pace": max((one.pace for one in estimates), default=None),
        "estimation_error_of_length": max((one.tokens for one in estimates), default=None),
        "preemptions": max((cell.of(OURS.name).preemptions for cell in counted), default=None),
        "unfinished": sum(cell.of(OURS.name).unfinished for cell in counted),
        "on_average": _on_average(counted),
        "by_shape": {
            shape: _on_average([cell for cell in counted if cell.shape == shape])
            for shape in dict.fromkeys(cell.shape for cell in counted)
        },
    }


def _on_average(cells: Sequence[Cell]) -> dict[str, float | None]:
    """The same over cells: geometric means of ratios."""
    found: dict[str, float | None] = {
        f"mean_latency_vs_{name}": _average(cells, "mean_s", name)
        for name in (FIRST_COME.name, LEAST_ATTAINED.name, SHORTEST_JOB.name)
    }
    estimates = [one for cell in cells if (one := cell.of(OURS.name).estimates)]
    return {
        **found,
        "gap_to_srpt": _gap(_average(cells, "mean_s", ORACLE.name)),
        "p99_vs_fcfs": _average(cells, "p99_s", FIRST_COME.name),
        "srpt_vs_fcfs": _average(cells, "mean_s", FIRST_COME.name, ours=ORACLE.name),
        "estimation_error": mean(one.seconds for one in estimates) if estimates else None,
        "pace_bias": mean(one.pace_bias for one in estimates) if estimates else None,
        "preemptions": mean(cell.of(OURS.name).preemptions for cell in cells) if cells else None,
    }


def ratios(cells: Sequence[Cell], field: str, name: str, ours: str = OURS.name) -> list[float]:
    """``ours`` over ``name``, where both were run."""
    return [
        getattr(cell.of(ours), field) / getattr(cell.of(name), field)
        for cell in cells
        if cell.has(name) and cell.has(ours)
    ]


def _worst(cells: Sequence[Cell], field: str, name: str) -> float | None:
    return max(ratios(cells, field, name), default=None)


def _average(cells: Sequence[Cell], field: str, name: str, ours: str = OURS.name) -> float | None:
    found = ratios(cells, field, name, ours)
    return geometric_mean(found) if found else None


def _vs_better(cell: Cell) -> list[float]:
    """Over the better of LAS and SJF; empty where neither was run."""
    others = [
        cell.of(one.name).mean_s for one in (LEAST_ATTAINED, SHORTEST_JOB) if cell.has(one.name)
    ]
    return [cell.of(OURS.name).mean_s / min(others)] if others else []


def _gap(ratio: float | None) -> float | None:
    return None if ratio is None else ratio - 1.0
