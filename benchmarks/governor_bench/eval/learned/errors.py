"""How far a model is off: steps and their 90th percentile, and what added rows cost."""

from __future__ import annotations

import msgspec
import numpy as np

from controller_service.learning.model import StepModel
from controller_service.learning.samples import Samples
from controller_service.predictors.base import Floats
from governor_bench.eval.learned.data import Mask, regime_keys, regime_of

ADDED_ROWS = (1, 2, 4, 8)
ADDED_CONTEXT_TOKENS = (256, 2048)
"""Context of each added row."""
LEAST_BATCHES = 20
"""Of a kind, so that an error of externalities means anything."""

GRAPHS_AND_TILES = "graph sizes and tiles"
LONG_CONTEXT = "long context"


class RegimeError(msgspec.Struct, frozen=True):
    """One regime's mean |predicted / measured - 1|."""

    rows: int
    context: int
    """Buckets, see :class:`~governor_bench.eval.learned.data.Regime`."""
    name: str
    mape: float
    samples: int
    held_out: bool


class StepErrors(msgspec.Struct, frozen=True):
    """Over some samples; shares, not per cent."""

    samples: int
    mape: float
    """Mean |predicted / measured - 1|."""
    worst_regime_mape: float
    p90_coverage: float
    """Share of steps that took no longer than their predicted 90th percentile."""


def step_errors(model: StepModel, samples: Samples) -> StepErrors:
    off, covered = _off(model, samples)
    keys = regime_keys(samples)
    worst = max((float(off[keys == key].mean()) for key in np.unique(keys)), default=0.0)
    return StepErrors(
        samples=len(samples),
        mape=float(off.mean()) if len(samples) else 0.0,
        worst_regime_mape=worst,
        p90_coverage=float(covered.mean()) if len(samples) else 0.0,
    )


def by_regime(model: StepModel, samples: Samples, *, held_out: bool) -> list[RegimeError]:
    off, _ = _off(model, samples)
    keys = regime_keys(samples)
    found = []
    for key in np.unique(keys):
        regime, mine = regime_of(key), off[keys == key]
        found.append(
            RegimeError(
                regime.rows, regime.context, regime.name, float(mine.mean()), len(mine), held_out
            )
        )
    return found


def externality_error(
    model: StepModel, truth: StepModel, rows: Floats, context_tokens: Floats
) -> float | None:
    """Sum of |predicted - true| externality over the sum of true ones.

    Args:
        rows, context_tokens: batches to which 1, 2, 4 and 8 rows of short and long context are
            added; shape ``(n,)``.

    Returns:
        None for fewer than :data:`LEAST_BATCHES` batches.
    """
    if len(rows) < LEAST_BATCHES:
        return None
    missed_s = total_s = 0.0
    for added in ADDED_ROWS:
        for tokens in ADDED_CONTEXT_TOKENS:
            more_rows, more_context = rows + added, context_tokens + added * tokens
            said_s = model.predict(more_rows, more_context) - model.predict(rows, context_tokens)
            true_s = truth.predict(more_rows, more_context) - truth.predict(rows, context_tokens)
            missed_s += float(np.abs(said_s - true_s).sum())
            total_s += float(true_s.sum())
    return missed_s / total_s


def bent_places(
    rows: Floats, context_tokens: Floats, graph_rows: tuple[int, ...], knee_tokens: int
) -> dict[str, Mask]:
    """Which batches stand where the cost is not linear; empty if it is linear everywhere."""
    places: dict[str, Mask] = {}
    long = context_tokens > knee_tokens if knee_tokens else np.zeros(len(rows), bool)
    if graph_rows:
        places[GRAPHS_AND_TILES] = ~long & (rows + ADDED_ROWS[-1] <= graph_rows[-1])
    if knee_tokens:
        places[LONG_CONTEXT] = long
    return places


def _off(model: StepModel, samples: Samples) -> tuple[Floats, Mask]:
    shape = (samples.rows, samples.context_tokens, samples.prefill_tokens, samples.draft_tokens)
    off = np.abs(model.predict(*shape) / samples.latency_s - 1.0)
    return off, samples.latency_s <= model.predict_p90(*shape)
