"""Linear step latency plus LightGBM on its residual, compiled into a monotone table.

The trees see what a line cannot (kernels switching tiles, a knee where the step turns
compute-bound), but they are steps themselves: read directly, the cost of one more row would be
zero almost everywhere and a jump elsewhere. So they are never asked at run time. Each refit
evaluates them on a grid, repairs monotony and hands policies a table that is smooth between grid
points, costs the same for any number of trees, and falls nowhere.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

import lightgbm
import numpy as np

from controller_service.predictors.base import Floats, StepSample, V
from controller_service.predictors.linear import OnlineLinearPredictor
from controller_service.predictors.samples import WeightedDesign
from controller_service.predictors.table import MonotoneTable, monotone

logger = logging.getLogger(__name__)

LEAST_SAMPLES = 192
RETRAIN_EVERY_STEPS = 1024
MOST_RESIDUAL = 0.5
"""The trees may move the line's prediction by this share of it at most."""
LEAST_SLOPE = 0.1
"""A row costs at least this share of what the line says: flat stretches of trees are artefacts."""
HOLD_OUT_EVERY = 5

_TREES = 80
_PARAMETERS = {
    "objective": "regression",
    "num_leaves": 15,
    "min_data_in_leaf": 10,
    "learning_rate": 0.1,
    "num_threads": 1,
    "deterministic": True,
    "seed": 7,
    "verbose": -1,
}


class BoostedPredictor:
    """Predicts by its line until a table is compiled that does better on samples held out."""

    name = "boosted"

    def __init__(self, *, background: bool = True) -> None:
        self._line = OnlineLinearPredictor()
        self._table: MonotoneTable | None = None
        self._tables = 0
        self._background = background
        self._training: threading.Thread | None = None
        self._since_training = RETRAIN_EVERY_STEPS

    @property
    def fitted(self) -> bool:
        return self._line.fitted

    @property
    def version(self) -> int:
        return self._line.version + self._tables

    def predict(self, rows: V, context_tokens: V, prefill_tokens: float = 0.0) -> V:
        table = self._table
        if table is None:
            return self._line.predict(rows, context_tokens, prefill_tokens)
        return table.predict(rows, context_tokens) + self._line.prefill_s(prefill_tokens)

    def observe(self, sample: StepSample) -> None:
        self._line.observe(sample)
        self._since_training += 1

    def refit_due(self, now_s: float) -> bool:
        return self._line.refit_due(now_s)

    def refit(self, now_s: float) -> None:
        """Refit the line here; train trees, when it is time to, in a thread of their own."""
        self._line.refit(now_s)
        busy = self._training is not None and self._training.is_alive()
        enough = len(self._line.buffer) >= LEAST_SAMPLES and self._line.fitted
        if busy or not enough or self._since_training < RETRAIN_EVERY_STEPS:
            return
        self._since_training = 0
        design = self._line.buffer.design(self._line.OUTLIER_FACTOR)
        if not self._background:
            self._train(design, self._line.abc)
            return
        self._training = threading.Thread(
            target=self._train, args=(design, self._line.abc), name="governor-train", daemon=True
        )
        self._training.start()

    def coefficients(self) -> Mapping[str, float]:
        return {**self._line.coefficients(), "tables": float(self._tables)}

    def _train(self, design: WeightedDesign, abc: tuple[float, float, float]) -> None:
        try:
            table = compile_table(design, abc)
        except lightgbm.basic.LightGBMError as error:
            logger.warning("boosted predictor: training failed, keeping the last model: %s", error)
            return
        # NOTE: readers on another thread see the old table or the new one, never half of one.
        if (table is None) != (self._table is None):
            logger.info("boosted predictor: now predicts by its %s", "table" if table else "line")
        self._table = table
        self._tables += 1


def compile_table(design: WeightedDesign, abc: tuple[float, float, float]) -> MonotoneTable | None:
    """Train on most samples; keep the table only if it beats the line on the rest.

    Returns:
        ``None`` when the line is as good.
    """
    rows, context, latency, weight = design
    held_out = np.arange(len(rows)) % HOLD_OUT_EVERY == 0
    train = ~held_out
    booster = _boost((rows[train], context[train], latency[train], weight[train]), abc)
    table = _table(booster, abc, float(rows.max()), float(context.max()))
    by_table = table.predict(rows[held_out], context[held_out])
    by_line = _line(abc, rows[held_out], context[held_out])
    truth = latency[held_out]
    gain = np.abs(by_line / truth - 1.0) - np.abs(by_table / truth - 1.0)
    # NOTE: not weighted by age. An engine that stays in one regime would otherwise let that one
    # decide alone, and throw away what is known of all others.
    return table if gain.mean() > 0 else None


def _boost(design: WeightedDesign, abc: tuple[float, float, float]) -> lightgbm.Booster:
    rows, context, latency, weight = design
    data = lightgbm.Dataset(
        np.column_stack([rows, context]),
        label=latency - _line(abc, rows, context),
        weight=weight / latency**2,  # least squares on relative error
    )
    return lightgbm.train(_PARAMETERS, data, num_boost_round=_TREES)


def _table(
    booster: lightgbm.Booster,
    abc: tuple[float, float, float],
    most_rows: float,
    most_context: float,
) -> MonotoneTable:
    rows = _grid(1.0, most_rows, points=24)
    context = _grid(64.0, most_context, points=32)
    grid_rows, grid_context = np.meshgrid(rows, context, indexing="ij")
    line = _line(abc, grid_rows, grid_context)
    residual = booster.predict(np.column_stack([grid_rows.ravel(), grid_context.ravel()]))
    bound = MOST_RESIDUAL * line
    bent = line + np.clip(np.reshape(residual, line.shape), -bound, bound)
    floor = LEAST_SLOPE * (line - abc[0])
    return MonotoneTable(rows, context, monotone(bent, floor), (abc[1], abc[2]))


def _grid(first: float, last: float, points: int) -> Floats:
    """0, then whole numbers spaced geometrically from ``first`` to ``last``."""
    spaced = np.unique(np.rint(np.geomspace(first, max(last, 2 * first), points)))
    return np.concatenate([[0.0], spaced])


def _line(abc: tuple[float, float, float], rows: Floats, context: Floats) -> Floats:
    return abc[0] + abc[1] * rows + abc[2] * context
