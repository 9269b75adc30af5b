"""Errors of a model on steps that it was not fitted to: of the step, its percentile, and of the
difference that a row makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from controller_service.learning.model import StepModel
from controller_service.learning.regimes import regime_keys, regime_name
from controller_service.learning.samples import Samples
from controller_service.predictors.base import Floats

Truth = Callable[[Floats, Floats], Floats]
"""True seconds of steps of decode alone, from rows and summed context, each of shape ``(n,)``."""

EXTRA_ROWS = (1, 2, 4, 8)
LEAST_IN_CELL = 5
CONTEXT_PER_OCTAVE = 4
"""Measured batches whose contexts fall into one of these parts of an octave are compared."""
LEAST_PAIRS = 8
LEAST_GROWTH = 1.5


class RegimeError(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far off a model is in one regime."""

    key: int
    name: str
    samples: int
    mape: float
    """Mean of ``|predicted / measured - 1|``."""
    mape_error: float
    """Standard error of ``mape``; 0 for one sample."""
    p90_coverage: float
    """Share of steps that stayed below the predicted 90th percentile."""


class Evaluation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far off a model is."""

    samples: int
    step_mape: float
    step_p90_coverage: float
    by_regime: tuple[RegimeError, ...]
    """By number, decode first."""


class ExternalityError(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far off a model is in what more rows add to a step."""

    relative: float
    """Sum of ``|predicted - true|`` over the sum of true."""
    bias: float
    """Sum of ``predicted - true`` over the sum of true."""
    comparisons: int


def evaluate(model: StepModel, samples: Samples) -> Evaluation:
    """
    Args:
        samples: held out; those that teach nothing are left out.

    Raises:
        ValueError: none is usable.
    """
    samples = samples.usable()
    if not len(samples):
        raise ValueError("no usable sample to evaluate on: hold out at least one measured step")
    shape = (samples.rows, samples.context_tokens, samples.prefill_tokens, samples.draft_tokens)
    error = np.abs(model.predict(*shape) / samples.latency_s - 1.0)
    covered = samples.latency_s <= model.predict_p90(*shape)
    keys = regime_keys(samples)
    by_regime = tuple(
        _regime(int(key), error[keys == key], covered[keys == key]) for key in np.unique(keys)
    )
    return Evaluation(len(samples), float(error.mean()), float(covered.mean()), by_regime)


def externality_error(
    model: StepModel,
    truth: Truth,
    rows: Floats,
    context_tokens: Floats,
    row_context: Sequence[float] = (256.0, 2048.0, 8192.0),
    extra_rows: Sequence[int] = EXTRA_ROWS,
) -> ExternalityError:
    """Predicted against true cost of extra rows on top of batches, where the truth is known.

    Args:
        rows, context_tokens: the batches, each of shape ``(n,)``.
        row_context: context tokens of an extra row.
        extra_rows: how many are added at once.
    """
    predicted, true = [], []
    before, before_true = model.predict(rows, context_tokens), truth(rows, context_tokens)
    for count in extra_rows:
        for context in row_context:
            more = (rows + count, context_tokens + count * context)
            predicted.append(model.predict(*more) - before)
            true.append(truth(*more) - before_true)
    return _compare(np.concatenate(predicted), np.concatenate(true))


def measured_externality_error(model: StepModel, samples: Samples) -> ExternalityError | None:
    """The same from measured steps alone: medians of batches with as much context and more rows.

    Steps of decode are put into cells of equal rows and nearly equal context, and each cell is
    compared with the next one of that context that has ``LEAST_GROWTH`` times the rows. What is
    measured is noisy: the figure is an upper bound, good to compare models with.

    Returns:
        None when fewer than ``LEAST_PAIRS`` pairs of cells have ``LEAST_IN_CELL`` steps each.
    """
    samples = samples.usable()
    samples = samples.take((samples.prefill_tokens == 0) & (samples.draft_tokens == 0))
    band = np.floor(np.log2(np.maximum(samples.context_tokens, 1.0)) * CONTEXT_PER_OCTAVE)
    cells = np.column_stack([band, samples.rows])
    found, index, counts = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    index = index.ravel()
    full = np.flatnonzero(counts >= LEAST_IN_CELL)
    # NOTE: what a cell's own spread of contexts does to its median, the model says itself.
    middles = [_middle(model, samples.take(index == cell)) for cell in full]
    pairs = [
        (small, large)
        for small in range(len(full))
        if (large := _partner(found[full], small)) is not None
    ]
    if len(pairs) < LEAST_PAIRS:
        return None
    measured, predicted = np.array(middles).T
    small, large = np.array(pairs).T
    return _compare(predicted[large] - predicted[small], measured[large] - measured[small])


def _partner(cells: Floats, small: int) -> int | None:
    """The next cell of the same context with clearly more rows: of a few rows more, noise is all
    that can be seen."""
    band, rows = cells[small]
    fits = (cells[:, 0] == band) & (cells[:, 1] >= LEAST_GROWTH * rows)
    return int(np.argmax(fits)) if fits.any() else None


def _middle(model: StepModel, cell: Samples) -> tuple[float, float]:
    """Median measured and median predicted seconds."""
    predicted = model.predict(cell.rows, cell.context_tokens)
    return float(np.median(cell.latency_s)), float(np.median(predicted))


def _compare(predicted: Floats, true: Floats) -> ExternalityError:
    total = max(float(np.abs(true.sum())), 1e-12)
    off = predicted - true
    return ExternalityError(
        float(np.abs(off).sum()) / total, float(off.sum()) / total, len(predicted)
    )


def _regime(key: int, error: Floats, covered: Floats) -> RegimeError:
    count = len(error)
    spread = float(error.std(ddof=1)) / count**0.5 if count > 1 else 0.0
    name = regime_name(key)
    return RegimeError(key, name, count, float(error.mean()), spread, float(covered.mean()))
