"""Every model fitted to the same steps and judged by those that were held out."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
import numpy as np

from controller_service.learning.evaluate import measured_externality_error
from controller_service.learning.model import StepModel
from controller_service.learning.samples import Samples
from governor_bench.eval.learned.data import Split, split
from governor_bench.eval.learned.errors import (
    RegimeError,
    StepErrors,
    bent_places,
    by_regime,
    externality_error,
    step_errors,
)
from governor_bench.eval.learned.models import choose, contender_names, fitted

POINTS = 400
"""Predicted against measured steps that a report keeps, for the plot."""
EVERYWHERE = "everywhere"
MEASURED_PAIRS = "pairs of measured steps"
"""Where the truth is not known: steps of like context and different rows are compared."""


class Truth(msgspec.Struct, frozen=True):
    """What is known of an engine beyond its measured steps."""

    step: StepModel | None
    """Exact step times; None on an engine that is no emulation."""
    graph_rows: tuple[int, ...]
    knee_tokens: int = 0
    """Summed context from which on a token costs more; 0: nowhere."""
    is_bent: bool = False
    """Whether the cost is not linear anywhere."""


class Figures(msgspec.Struct, frozen=True):
    """One model on one set of steps."""

    model: str
    held_regimes: StepErrors
    """Decode steps of regimes that were not learnt from."""
    held_samples: StepErrors
    """Decode steps of regimes that were."""
    prefill: StepErrors
    """Steps with prefill."""
    externality: dict[str, float | None]
    """By place; over held-out batches. None where too few stand there or the truth is unknown."""
    regimes: list[RegimeError]
    points: list[tuple[float, float]]
    """Measured and predicted time of held-out steps, ms."""
    fit_s: float


class Judged(msgspec.Struct, frozen=True):
    """All models on one set of steps."""

    chosen: str
    """The family that ``governor fit --family auto`` takes, from what it may learn from alone."""
    figures: list[Figures]
    train_samples: int
    held_regimes: list[str]
    measured_mape: float | None = None
    """Mean |measured / true - 1| of all decode steps: what no model can do better than. None where
    the truth is unknown."""

    def of(self, model: str) -> Figures:
        return next(one for one in self.figures if one.model == model)


def judge(samples: Samples, truth: Truth, seed: int) -> tuple[Judged, dict[str, StepModel]]:
    """Fit and judge everything; also returns the models by name."""
    parts = split(samples, seed)
    models: dict[str, StepModel] = {}
    figures = []
    for name in contender_names():
        started_s = time.perf_counter()
        models[name] = fitted(name, parts.train, truth.graph_rows)
        taken_s = time.perf_counter() - started_s
        figures.append(_figures(name, models[name], parts, truth, taken_s))
    held = by_regime(models[figures[0].model], parts.held_regimes, held_out=True)
    judged = Judged(
        chosen=choose(parts.train, truth.graph_rows, seed),
        figures=figures,
        train_samples=len(parts.train),
        held_regimes=[regime.name for regime in held],
        measured_mape=None if truth.step is None else _noise(samples, truth.step),
    )
    return judged, models


def _figures(name: str, model: StepModel, parts: Split, truth: Truth, fit_s: float) -> Figures:
    decode, prefill = _by_kind(parts.held_samples)
    judged_by = Samples.join([parts.held_regimes, decode])
    return Figures(
        model=name,
        held_regimes=step_errors(model, parts.held_regimes),
        held_samples=step_errors(model, decode),
        prefill=step_errors(model, prefill),
        externality=_externality(model, truth, judged_by),
        regimes=[
            *by_regime(model, parts.held_regimes, held_out=True),
            *by_regime(model, decode, held_out=False),
        ],
        points=_points(model, parts.held_regimes),
        fit_s=round(fit_s, 2),
    )


def _noise(samples: Samples, truth: StepModel) -> float:
    decode, _ = _by_kind(samples)
    said_s = truth.predict(decode.rows, decode.context_tokens)
    return float(np.abs(decode.latency_s / said_s - 1.0).mean())


def _by_kind(samples: Samples) -> tuple[Samples, Samples]:
    decode = samples.prefill_tokens == 0
    return samples.take(decode), samples.take(~decode)


def _externality(model: StepModel, truth: Truth, batches: Samples) -> dict[str, float | None]:
    if truth.step is None:
        pairs = measured_externality_error(model, batches)
        return {MEASURED_PAIRS: None if pairs is None else pairs.relative}
    rows, context = batches.rows, batches.context_tokens
    found = {EVERYWHERE: externality_error(model, truth.step, rows, context)}
    if truth.is_bent:
        for place, here in bent_places(rows, context, truth.graph_rows, truth.knee_tokens).items():
            found[place] = externality_error(model, truth.step, rows[here], context[here])
    return found


def _points(model: StepModel, samples: Samples) -> list[tuple[float, float]]:
    some = samples.take(np.unique(np.linspace(0, len(samples) - 1, POINTS).astype(int)))
    predicted = model.predict(
        some.rows, some.context_tokens, some.prefill_tokens, some.draft_tokens
    )
    pairs: Sequence[tuple[float, float]] = list(
        zip(some.latency_s.tolist(), predicted.tolist(), strict=True)
    )
    return [(round(1e3 * measured, 4), round(1e3 * said, 4)) for measured, said in pairs]
