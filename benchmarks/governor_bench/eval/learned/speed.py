"""What it costs to ask a model about 1, 8 and 64 candidate batches."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from controller_service.learning.model import StepModel
from controller_service.predictors.corrected import CorrectedPredictor
from governor_bench.eval.learned.models import PUBLISHED, ModelPredictor

CANDIDATES = (1, 8, 64)
ROUNDS = 40
CALLS = 50


def predict_us(
    models: Mapping[str, StepModel], rounds: int = ROUNDS
) -> dict[str, dict[str, float]]:
    """Microseconds of one call, with the online correction on top as at run time.

    The models take turns in blocks within one run, so that their ratio holds on a noisy machine;
    the median over blocks of each block's mean.

    Returns:
        By name: ``"1"``, ``"8"`` and ``"64"`` candidates in microseconds, and ``"vs_linear"``, the
        largest ratio to that of a straight line, which is three products and two sums.
    """
    predictors = {name: CorrectedPredictor(ModelPredictor(model)) for name, model in models.items()}
    taken: dict[str, dict[str, float]] = {name: {} for name in models}
    rng = np.random.default_rng(1)
    for count in CANDIDATES:
        rows = np.rint(rng.uniform(1, 256, count))
        context = np.rint(rows * rng.uniform(64, 1024, count))
        blocks: dict[str, list[float]] = {name: [] for name in models}
        for _ in range(rounds):
            for name, predictor in predictors.items():
                start_s = time.perf_counter()
                for _ in range(CALLS):
                    predictor.predict(rows, context)
                blocks[name].append((time.perf_counter() - start_s) / CALLS)
        for name, seconds in blocks.items():
            taken[name][str(count)] = 1e6 * float(np.median(seconds))
    line = taken[PUBLISHED]
    for name, mine in taken.items():
        mine["vs_linear"] = max(mine[str(count)] / line[str(count)] for count in CANDIDATES)
        taken[name] = {key: round(value, 2) for key, value in mine.items()}
    return taken
