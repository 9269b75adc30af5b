"""Steps with a truth that no line can follow, and models fitted to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from controller_service.learning.artifact import save_model
from controller_service.learning.fit import fit
from controller_service.learning.model import EngineKey
from controller_service.learning.samples import Samples
from controller_service.predictors.base import StepSample

HERE = EngineKey("a/model", "", 1, "0.5.17")
"""What the tests' ``hello`` introduces."""


def bent_s(rows, context):
    """A step that takes 4 ms more from the 65th row on: one more tile."""
    return 0.007 + 4e-5 * rows + 1.4e-8 * context + np.where(rows > 64, 0.004, 0.0)


def steps(count: int, seed: int = 0, noise: float = 0.01, factor: float = 1.0, truth=bent_s):
    """Steps of varied shapes."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        rows = int(rng.integers(1, 160))
        context = rows * int(rng.integers(200, 2000))
        seconds = float(truth(rows, context)) * factor * float(rng.normal(1.0, noise))
        yield StepSample(rows, context, 0, seconds)


def model_folder(
    folder: Path, engine: EngineKey = HERE, family: str = "measured", count: int = 4000, **truth
) -> Path:
    """A model as ``governor fit`` would write it."""
    result = fit(Samples.of(steps(count, seed=9, **truth)), engine, (family,), (), seed=1)
    save_model(folder, result.model, result.manifest)
    return folder


def feed(predictor, samples, now_s: float = 0.0, apart_s: float = 0.05) -> float:
    """Have ``predictor`` observe, and refit whenever it wants to; returns the time after it."""
    for sample in samples:
        predictor.observe(sample)
        now_s += apart_s
        if predictor.refit_due(now_s):
            predictor.refit(now_s)
    return now_s


def median_error(predictor, samples) -> float:
    return float(
        np.median(
            [
                abs(predictor.predict(float(s.rows), float(s.context_tokens)) / s.latency_s - 1.0)
                for s in samples
            ]
        )
    )
