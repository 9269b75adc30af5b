"""The straight part of every model: ``a + b*rows + c*context``, and what other tokens add."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from controller_service.learning.families.family import NotEnough
from controller_service.learning.samples import Samples
from controller_service.predictors import least_squares
from controller_service.predictors.base import Floats
from controller_service.predictors.table import CompiledTable, Surcharge

LEAST_SURCHARGED_STEPS = 8
"""Fewer steps with prefill, or with draft tokens, say nothing of their cost."""
KNOT_RATIO = 2.0
MOST_KNOTS = 16
NOISE = 0.02
"""Relative; the pull of the prior is worth one sample of this noise."""
OUTLIER_SPREADS = 5.0

Mask = npt.NDArray[np.bool_]
Line = tuple[float, float, float]
"""Seconds; seconds a row; seconds a token of context. The last two above 0."""


def fit_line(decode: Samples) -> Line:
    """Robust, non-negative, on relative error; pulled towards a proportional prior where steps
    all look alike (:func:`~controller_service.predictors.least_squares.towards_prior`).

    Raises:
        NotEnough: no line fits.
    """
    ones = np.ones(len(decode))
    found = least_squares.towards_prior(
        (decode.rows, decode.context_tokens, decode.latency_s, ones)
    )
    if found is None or not np.isfinite(found).all() or found.sum() <= 0:
        raise NotEnough("no line fits the decode steps: check their latencies")
    a, b, c = (float(value) for value in found)
    # NOTE: exact zeros would make rows free, and the proportion of the prior is a better guess.
    prior = least_squares.PRIOR_SHAPE * max(a, 1e-3 * float(np.median(decode.latency_s)))
    least = least_squares.ROW_COST_FLOOR * prior * 0.1
    return max(a, float(least[0])), max(b, float(least[1])), max(c, float(least[2]))


def line_s(line: Line, rows: Floats, context: Floats) -> Floats:
    """Seconds, in the shape of the arguments."""
    return line[0] + line[1] * rows + line[2] * context


def unknown_surcharge(line: Line) -> Surcharge:
    """The best guess for tokens that were never measured: they pass through the same products of
    matrices as rows do, so one costs what a row costs."""
    return Surcharge(np.array([0.0, 1024.0]), np.array([0.0, 1024.0 * line[1]]), 0.0)


def fit_surcharges(
    samples: Samples, decode: CompiledTable, line: Line, bent: bool = True
) -> tuple[Surcharge, Surcharge]:
    """What prefill tokens, and draft tokens, add to a step.

    Args:
        samples: any; those with prefill or draft tokens teach.
        decode: predicts a step without either; its own surcharges are not used.
        bent: whether the cost of a token may change with their number.

    Returns:
        For prefill, beside summed context; for draft tokens, beside rows.
    """
    rest = samples.latency_s - decode.predict(samples.rows, samples.context_tokens)
    drafts, prefills = samples.draft_tokens > 0, samples.prefill_tokens > 0
    chosen = prefills & ~drafts
    prefill = _fit(samples.prefill_tokens, samples.context_tokens, rest, samples, chosen, bent)
    prefill = prefill or unknown_surcharge(line)
    # Steps that also prefill say too little of drafts.
    chosen = drafts & ~prefills
    draft = _fit(samples.draft_tokens, samples.rows, rest, samples, chosen, bent)
    return prefill, draft or unknown_surcharge(line)


def _fit(
    tokens: Floats, beside: Floats, rest: Floats, samples: Samples, chosen: Mask, bent: bool
) -> Surcharge | None:
    """Ramps between knots, none of them falling, pulled towards one slope; robust in two passes."""
    if int(chosen.sum()) < LEAST_SURCHARGED_STEPS:
        return None
    tokens, beside, rest, latency = (
        column[chosen] for column in (tokens, beside, rest, samples.latency_s)
    )
    knots = _knots(tokens, bent)
    slope = max(float(np.median(rest / tokens)), 1e-12)
    width = np.diff(knots)
    ramps = np.clip((tokens[:, None] - knots[:-1]) / width, 0.0, None)
    ramps[:, :-1] = np.minimum(ramps[:, :-1], 1.0)
    reach = float((tokens * beside).max())
    units = np.concatenate([slope * width, [slope * float(knots[-1]) if bent and reach else 0.0]])
    both = np.column_stack([ramps, tokens * beside / max(reach, 1.0)]) * units
    target = np.concatenate([np.ones(len(width)), [0.0]])
    trust = np.ones(len(tokens))
    for _ in range(2):
        root = trust / latency
        matrix = np.vstack([both * root[:, None], NOISE * np.eye(len(units))])
        solution, _ = nnls(matrix, np.concatenate([rest * root, NOISE * target]))
        error = np.abs(rest - both @ solution) / latency
        spread = max(float(np.median(error)), 1e-3)
        trust = np.minimum(1.0, OUTLIER_SPREADS * spread / np.maximum(error, 1e-9))
    rises = solution[:-1] * units[:-1]
    coupling = float(solution[-1] * units[-1] / reach) if reach else 0.0
    return Surcharge(knots, np.concatenate([[0.0], np.cumsum(rises)]), coupling)


def _knots(tokens: Floats, bent: bool) -> Floats:
    """From 0, then geometrically over what was measured; shape ``(k,)``, at least two."""
    first, last = float(tokens.min()), float(tokens.max())
    if not bent or last < KNOT_RATIO * first:
        return np.array([0.0, last])
    count = int(np.log(last / first) / np.log(KNOT_RATIO)) + 1
    inner = np.geomspace(first, last, min(count, MOST_KNOTS - 1))
    return np.concatenate([[0.0], inner])
