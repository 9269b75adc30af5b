"""Two ways to fit ``T = a + b*rows + c*context`` with no negative coefficient."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from controller_service.predictors.base import Floats
from controller_service.predictors.samples import Design, WeightedDesign

PRIOR_SHAPE = np.array([1.0, 4e-3, 4e-6])
"""a : b : c before anything is known. Across the GPU step times that Governor is calibrated with
(8B to 32B, A100 and H200, one to eight devices) one row costs 0.2-0.6 % of the fixed part, and one
context token 1.6e-6 to 2.3e-5 of it."""

PRIOR_SPREAD = 3.0
"""How far off the prior may be, as a relative standard deviation."""

ROW_COST_FLOOR = 0.1
"""Least cost of a row, as a share of the prior's: noise must not make rows look free."""

ROBUST_PASSES = 3
HUBER = 1.5
"""Errors beyond this many times the noise count in proportion, not squared."""

LEAST_NOISE = 0.01
"""Relative measurement noise that is assumed even where none was seen."""


def published(design: Design) -> Floats | None:
    """Plain non-negative least squares (TAPER).

    Returns:
        ``(a, b, c)`` in seconds, per row, per token; ``None`` if the solver did not converge.
    """
    rows, context, latency = design
    matrix = np.column_stack([np.ones_like(rows), rows, context])
    scale = np.maximum(matrix.max(axis=0), 1e-12)
    solution = _solve(matrix / scale, latency)
    return None if solution is None else solution / scale


def towards_prior(design: WeightedDesign) -> Floats | None:
    """Non-negative ridge regression on relative error, pulled towards a proportional prior.

    When every step looked alike, the slopes cannot be told from the fixed part; the prior then
    decides their proportion and the data their size. The pull is worth ``(noise / spread)^2`` of
    one sample, so a few dozen varied samples outweigh it. Rows never get cheaper than
    ``ROW_COST_FLOOR`` times the prior.

    Returns:
        ``(a, b, c)`` in seconds, per row, per token; ``None`` if the solver did not converge.
    """
    rows, context, latency, weight = design
    matrix = np.column_stack([np.ones_like(rows), rows, context])
    size = float(np.median(latency / (matrix @ PRIOR_SHAPE)))
    prior = size * PRIOR_SHAPE
    units = matrix * prior
    solution = _ridge(units, latency, units.sum(axis=1), weight, LEAST_NOISE)
    for _ in range(ROBUST_PASSES):
        if solution is None:
            return None
        fitted = units @ solution
        error = np.abs(latency / fitted - 1.0)
        noise = max(1.4826 * float(np.median(error)), LEAST_NOISE)
        # Huber's weights: what is far off pulls no harder than what is just off.
        trust = weight * np.minimum(1.0, HUBER * noise / np.maximum(error, LEAST_NOISE))
        solution = _ridge(units, latency, fitted, trust, noise)
    return None if solution is None else solution * prior


def _ridge(
    units: Floats, latency: Floats, typical: Floats, weight: Floats, noise: float
) -> Floats | None:
    """One pass, in units of the prior, with errors relative to ``typical``.

    NOTE: relative to the measurement itself, one step that seemed to take no time - its results
    were taken in late, and those of the next one at once - would outweigh all others.
    """
    root = np.sqrt(weight) / typical
    pull = noise / PRIOR_SPREAD
    floor = np.array([0.0, ROW_COST_FLOOR, 0.0])
    matrix = np.vstack([units * root[:, None], pull * np.eye(3)])
    target = np.concatenate([latency * root, np.full(3, pull)])
    above_floor = _solve(matrix, target - matrix @ floor)
    return None if above_floor is None else above_floor + floor


def _solve(matrix: Floats, target: Floats) -> Floats | None:
    try:
        solution, _ = nnls(matrix, target)
    except RuntimeError:  # too many iterations: keep what was fitted before
        return None
    return np.asarray(solution, dtype=np.float64)
