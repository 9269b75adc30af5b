"""From judged models to the report: the worst at the top, everything behind it below."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from controller_service.predictors.registry import CORRECTED
from governor_bench.envelope import Stopwatch, envelope
from governor_bench.eval.learned.judge import EVERYWHERE, Judged
from governor_bench.eval.learned.models import LINEAR
from governor_bench.eval.learned.recovery import Recovery
from governor_bench.eval.learned.speed import CANDIDATES

P90 = 0.9


class Cell(msgspec.Struct, frozen=True):
    """Judged models of one engine and one source of steps."""

    name: str
    seed: int
    is_bent: bool
    """Whether the true cost is not linear."""
    judged: Judged


def compose_report(
    *,
    tier: str,
    cells: Sequence[Cell],
    recovered: Sequence[Recovery],
    speed: dict[str, dict[str, float]],
    seeds: list[int],
    arguments: dict[str, Any],
    stopwatch: Stopwatch,
) -> dict[str, Any]:
    """The report.

    Args:
        speed: of :func:`~governor_bench.eval.learned.speed.predict_us`.
    """
    return {
        **headline(cells, recovered),
        **_asking(speed),
        "chosen": {f"{cell.name}, seed {cell.seed}": cell.judged.chosen for cell in cells},
        "cells": [msgspec.to_builtins(cell) for cell in cells],
        "recovery": [msgspec.to_builtins(one) for one in recovered],
        **envelope(tier=tier, seeds=seeds, arguments=arguments, stopwatch=stopwatch),
    }


def headline(cells: Sequence[Cell], recovered: Sequence[Recovery]) -> dict[str, Any]:
    """The figures at the top: of the family that ``governor fit`` chooses by itself, the worst over
    all cells; errors of steps on held-out regimes, coverage on held-out samples of the others."""
    chosen = [cell.judged.of(cell.judged.chosen) for cell in cells]
    lines = [cell.judged.of(LINEAR) for cell in cells]
    return {
        "step_mape": max(figures.held_regimes.mape for figures in chosen),
        "step_mape_known_regimes": max(figures.held_samples.mape for figures in chosen),
        "step_p90_coverage": max(_coverage(cells), key=lambda share: abs(share - P90)),
        "measured_mape": max(
            (cell.judged.measured_mape for cell in cells if cell.judged.measured_mape is not None),
            default=None,
        ),
        "linear_step_mape": max(figures.held_regimes.mape for figures in lines),
        **_externality(cells),
        **_recovery(recovered),
    }


def _coverage(cells: Sequence[Cell]) -> list[float]:
    """Of each engine and source; over its seeds together, since the share of some hundred steps
    strays by a point by chance alone."""
    counts: dict[str, list[float]] = {}
    for cell in cells:
        held = cell.judged.of(cell.judged.chosen).held_samples
        known = counts.setdefault(cell.name, [0.0, 0.0])
        known[0] += held.p90_coverage * held.samples
        known[1] += held.samples
    return [covered / samples for covered, samples in counts.values()]


def _externality(cells: Sequence[Cell]) -> dict[str, Any]:
    """Over the places where the cost is not linear, of cells that have such."""
    errors, lines, ratios = [], [], []
    for cell in cells:
        mine, line = cell.judged.of(cell.judged.chosen), cell.judged.of(LINEAR)
        for place, error in mine.externality.items():
            of_line = line.externality[place]
            if place == EVERYWHERE or error is None or of_line is None:
                continue
            errors.append(error)
            lines.append(of_line)
            ratios.append(of_line / error if error else float("inf"))
    return {
        "externality_error": max(errors, default=None),
        "linear_externality_error": max(lines, default=None),
        "externality_times_better": min(ratios, default=None),
    }


def _recovery(recovered: Sequence[Recovery]) -> dict[str, Any]:
    """The slowest of the predictors that are corrected; None if one did not recover."""
    mine = [one for one in recovered if one.predictor.startswith(CORRECTED)]
    errors = _slowest(one.error_steps for one in mine)
    attainment = _slowest(one.attainment_steps for one in mine)
    return {
        "recovery_steps": _slowest([errors, attainment]) if mine else None,
        "recovery_steps_error": errors,
        "recovery_steps_attainment": attainment,
    }


def _slowest(steps: Iterable[int | None]) -> int | None:
    """None if there are none, or if one of them is None."""
    found = list(steps)
    known = [one for one in found if one is not None]
    return max(known) if known and len(known) == len(found) else None


def _asking(speed: dict[str, dict[str, float]]) -> dict[str, Any]:
    sizes = [str(count) for count in CANDIDATES]
    return {
        "predict_us": {size: max(mine[size] for mine in speed.values()) for size in sizes},
        "predict_us_vs_linear": max((mine["vs_linear"] for mine in speed.values()), default=None),
        "predict_us_by_model": speed,
    }
