"""Least squares with costs that cannot be negative."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

Floats = npt.NDArray[np.float64]


def nonnegative(matrix: Floats, target: Floats) -> Floats:
    """The ``x`` of least ``|matrix @ x - target|`` whose entries are at least 0.

    Args:
        matrix: shape ``(n, k)``.
        target: shape ``(n,)``.
    """
    # NOTE: scipy's tolerance grows with the largest column: with context tokens beside rows it
    # would end before it has begun.
    norms = np.linalg.norm(matrix, axis=0)
    norms[norms == 0] = 1.0
    solution, _ = nnls(matrix / norms, target, maxiter=30 * matrix.shape[1])
    scaled: Floats = solution / norms
    return scaled


def relative_fit(columns: Floats, seconds: Floats) -> Floats:
    """Costs of ``columns``, shape ``(n, k)``, with the least relative error of ``seconds``."""
    return nonnegative(columns / seconds[:, None], np.ones(len(seconds)))
