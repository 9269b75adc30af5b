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
    prior = float(np.median(latency / (matrix @ PRIOR_SHAPE))) * PRIOR_SHAPE
    pulls, wanted = np.eye(3) / PRIOR_SPREAD, np.full(3, 1.0 / PRIOR_SPREAD)
    floor = np.array([0.0, ROW_COST_FLOOR, 0.0])
    found = robust_ridge(matrix * prior, latency, weight, pulls, wanted, floor)
    return None if found is None else found * prior


def robust_ridge(
    units: Floats,
    latency: Floats,
    weight: Floats,
    pulls: Floats,
    wanted: Floats,
    floor: Floats | None = None,
) -> Floats | None:
    """Non-negative regression on relative error that outliers do not sway.

    Args:
        units: what each coefficient adds to each step, in seconds, at 1; shape ``(n, k)``.
        latency, weight: shape ``(n,)``.
        pulls: combinations of coefficients that should equal ``wanted``, in units of their spread;
            shapes ``(m, k)`` and ``(m,)``. Each is worth the square of the noise of one sample.
        floor: least value of each coefficient, shape ``(k,)``; 0 by default.

    Returns:
        Coefficients, shape ``(k,)``; ``None`` if the solver did not converge.
    """
    least = np.zeros(units.shape[1]) if floor is None else floor
    typical, trust, noise = units.sum(axis=1), weight, LEAST_NOISE
    solution: Floats | None = None
    for _ in range(1 + ROBUST_PASSES):
        # NOTE: relative to what is fitted and not to the measurement itself, or one step that
        # seemed to take no time - its results were taken in late, and those of the next one at
        # once - would outweigh all others.
        root = np.sqrt(trust) / typical
        matrix = np.vstack([units * root[:, None], noise * pulls])
        target = np.concatenate([latency * root, noise * wanted])
        above_floor = _solve(matrix, target - matrix @ least)
        if above_floor is None:
            return None
        solution = above_floor + least
        typical = units @ solution
        error = np.abs(latency / typical - 1.0)
        noise = max(1.4826 * float(np.median(error)), LEAST_NOISE)
        # Huber's weights: what is far off pulls no harder than what is just off.
        trust = weight * np.minimum(1.0, HUBER * noise / np.maximum(error, LEAST_NOISE))
    return solution


def _solve(matrix: Floats, target: Floats) -> Floats | None:
    try:
        solution, _ = nnls(matrix, target)
    except RuntimeError:  # too many iterations: keep what was fitted before
        return None
    return np.asarray(solution, dtype=np.float64)
