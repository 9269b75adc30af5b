"""The steps that fitting has in common, whatever models the decode part of a step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec
import numpy as np

from controller_service.learning.families.axes import Axes, axes_for
from controller_service.learning.families.compiled import rasterize
from controller_service.learning.families.family import LEAST_DECODE_STEPS, NotEnough
from controller_service.learning.families.line import (
    Line,
    fit_line,
    fit_surcharges,
    line_s,
    unknown_surcharge,
)
from controller_service.learning.families.spread import Predicted, Spread, measure_spread, predicted
from controller_service.learning.regimes import regime_keys
from controller_service.learning.samples import Samples
from controller_service.predictors.base import Floats
from controller_service.predictors.table import CompiledTable

FOLDS = 3
"""Each part of the samples is held out once, to measure how far steps lie above a prediction. With
one part alone the coverage would hang on the luck of the draw."""
LEAST_FOLD = 16
"""Decode steps that a fit of the others needs."""
SEED = 11
OUTLIER_SPREADS = 6.0
LEAST_OUTLIER = 0.3
"""In log seconds: less than this is never a pause."""

DecodeCurve = Callable[[Floats, Floats], Floats]
"""Rows and context, each of shape ``(n,)``, to seconds; may fall here and there."""
FitCurve = Callable[[Samples, Line], DecodeCurve]
"""Fits the cost of decode alone."""


class Fitted(msgspec.Struct, frozen=True, eq=False):
    """A mean, and what is needed to make a 90th percentile of it."""

    axes: Axes
    line: Line
    mean: CompiledTable
    """Fitted to every sample."""
    unseen: Predicted
    spread: Spread


def decode_only(samples: Samples) -> Samples:
    """Steps without prefill and without draft tokens."""
    plain = (samples.prefill_tokens == 0) & (samples.draft_tokens == 0) & (samples.rows > 0)
    return samples.take(plain)


def without_pauses(decode: Samples, line: Line) -> Samples:
    """Without steps that took far longer, or far less, than others of their regime: a pause of the
    machine says nothing of the next step. They still count where a percentile is measured.
    """
    off = np.log(decode.latency_s / line_s(line, decode.rows, decode.context_tokens))
    keys = regime_keys(decode)
    keep = np.ones(len(decode), dtype=bool)
    for key in np.unique(keys):
        inside = keys == key
        apart = np.abs(off[inside] - np.median(off[inside]))
        spread = 1.4826 * float(np.median(apart))
        keep[inside] = apart <= max(OUTLIER_SPREADS * spread, LEAST_OUTLIER)
    return decode.take(keep)


def assemble(
    train: Samples, graph_rows: tuple[int, ...], fit_curve: FitCurve, *, bent: bool = True
) -> Fitted:
    """Measure the spread by fits that leave a part out each, then fit to everything.

    Args:
        bent: whether surcharges may bend.

    Raises:
        NotEnough: fewer than ``LEAST_DECODE_STEPS`` steps of decode alone.
    """
    train = train.usable()
    decode = decode_only(train)
    if len(decode) < LEAST_DECODE_STEPS:
        raise NotEnough(
            f"{len(decode)} steps of decode alone; a model needs at least {LEAST_DECODE_STEPS}"
        )
    axes = axes_for(decode, graph_rows)
    partial_fit = partial(_compile, axes=axes, fit_curve=fit_curve, bent=bent)
    unseen = _predict_unseen(train, partial_fit)
    mean, line = partial_fit(train)  # the last: families remember what they fitted
    if unseen is None:
        unseen = predicted(train, mean)  # too few to hold any out: judge by what was fitted
    return Fitted(axes, line, mean, unseen, measure_spread(unseen))


def _predict_unseen(
    train: Samples, fit: Callable[[Samples], tuple[CompiledTable, Line]]
) -> Predicted | None:
    """Every sample, predicted by a fit that had not seen it; None if there are too few."""
    fold = np.random.default_rng(SEED).permutation(len(train)) % FOLDS
    parts = []
    for held_out in (fold == one for one in range(FOLDS)):
        rest = train.take(~held_out)
        if len(decode_only(rest)) < LEAST_FOLD or not held_out.any():
            return None
        table, _ = fit(rest)
        parts.append(predicted(train.take(held_out), table))
    unseen = Predicted.join(parts)
    return unseen if len(unseen.decode_only()) else None


def _compile(
    train: Samples, axes: Axes, fit_curve: FitCurve, bent: bool
) -> tuple[CompiledTable, Line]:
    decode = decode_only(train)
    line = fit_line(decode)
    decode = without_pauses(decode, line)
    rows, context = axes.mesh()
    seconds = fit_curve(decode, line)(rows.ravel(), context.ravel()).reshape(rows.shape)
    unknown = unknown_surcharge(line)
    table = rasterize(axes, seconds, line, unknown, unknown)
    prefill, draft = fit_surcharges(train, table, line, bent)
    return CompiledTable(table.context, table.latency_s, line[1:], prefill, draft), line


def coefficients(mean: CompiledTable) -> dict[str, float]:
    """What was learnt, for people: names carry units. A step without rows and context, and the
    slopes beyond what was measured."""
    return {
        "a_s": float(mean.latency_s[0, 0]),
        "b_s_per_row": mean.slopes[0],
        "c_s_per_token": mean.slopes[1],
        "d_s_per_prefill_token": mean.prefill.token_s,
        "e_s_per_draft_token": mean.draft.token_s,
    }
