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
    # In units of the prior, and relative to each measurement: a perfect fit makes every row 1.
    relative = matrix * prior / latency[:, None]
    first = _ridge(relative, weight, LEAST_NOISE)
    if first is None:
        return None
    noise = 1.4826 * float(np.median(np.abs(relative @ first - 1.0)))
    solution = _ridge(relative, weight, max(noise, LEAST_NOISE))
    return None if solution is None else solution * prior


def _ridge(relative: Floats, weight: Floats, noise: float) -> Floats | None:
    root = np.sqrt(weight)
    pull = noise / PRIOR_SPREAD
    floor = np.array([0.0, ROW_COST_FLOOR, 0.0])
    matrix = np.vstack([relative * root[:, None], pull * np.eye(3)])
    target = np.concatenate([root, np.full(3, pull)])
    above_floor = _solve(matrix, target - matrix @ floor)
    return None if above_floor is None else above_floor + floor


def _solve(matrix: Floats, target: Floats) -> Floats | None:
    try:
        solution, _ = nnls(matrix, target)
    except RuntimeError:  # too many iterations: keep what was fitted before
        return None
    return np.asarray(solution, dtype=np.float64)
