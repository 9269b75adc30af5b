"""A predictor that is corrected by what was measured since it learnt.

Any predictor is wrong where it has not been: after a change of clocks, of neighbours, of traffic,
or because it was set up for another machine. Two things are followed, step by step, without a
refit: ``T' = ratio * (T + bias(rows))``.

- ``ratio``, common to all steps, with a memory of some twenty. Single outliers move it by a tenth
  of what they are off at most; eight steps in a row that are off in one direction, in batches of
  shapes that were known, are taken for what they are - another machine - and set it at once.
- ``bias`` by batch size (:mod:`.bias`), which never makes a step shorter by adding a row.

The 90th percentile is followed as well (:mod:`.quantile`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median

import numpy as np

from controller_service.predictors.base import (
    LEAST_LATENCY_S,
    P90,
    FollowsChange,
    KnowsRowCost,
    StepLatencyPredictor,
    StepSample,
    V,
)
from controller_service.predictors.bias import MOST_ROWS, RowBias
from controller_service.predictors.newest import NewestSteps
from controller_service.predictors.quantile import QuantileRatio

MEMORY = 0.05
"""Weight of the newest step in the ratio, once it has been followed for twenty."""
LARGEST_RATIO = 10.0
NEWS = 0.01
"""Relative change of the ratio that makes old standing orders stale."""

OUTLIER = 0.1
"""Relative error beyond which a step counts as this far off, unless its neighbours agree."""
OUTLIER_SPREADS = 4.0
AGREEING_STEPS = 4
CHANGED_STEPS = 8
"""So many steps in a row that are off in one direction show a change."""
CHANGED = 0.15
"""How far off they must be at least, in their median, as a logarithm."""
KNOWN_STEPS = 8
"""A shape is known once so many steps of it were seen since the last change."""
RATIO_FROM = 32
"""Steps from which the ratio is set anew after a refit."""


class CorrectedPredictor:
    """Wraps ``base``; see the module's docstring."""

    def __init__(self, base: StepLatencyPredictor) -> None:
        self._base = base
        self._base_version = base.version
        self._ratio = 1.0
        self._told_ratio = 1.0
        self._steps = 0
        self._first: list[float] = []
        """Measured over predicted time of the very first steps, whose median is the ratio."""
        self._changes = 0
        self._bias = RowBias()
        self._tail = QuantileRatio(P90)
        self._base_tail = 1.0
        """The base's 90th percentile over its mean."""
        self._newest = NewestSteps()
        self._run = 0
        """Steps in a row that were far off, negative if they took less than predicted."""
        self._before_run = (1.0, 1.0, self._bias.state())
        """Percentile's ratio, ratio and bias as they were when the run began."""
        self._learn_floor()

    @property
    def name(self) -> str:
        return f"corrected-{self._base.name}"

    @property
    def base(self) -> StepLatencyPredictor:
        """What is corrected."""
        return self._base

    @property
    def fitted(self) -> bool:
        return self._base.fitted

    @property
    def version(self) -> int:
        return self._base.version + self._changes + self._bias.compiled

    @property
    def model_id(self) -> str:
        """Of the model that is corrected; empty if the base has none."""
        return str(getattr(self._base, "model_id", ""))

    @property
    def correction_ratio(self) -> float:
        """What every prediction of the base is multiplied by."""
        return self._ratio

    def predict(
        self,
        rows: V,
        context_tokens: V,
        prefill_tokens: float | V = 0.0,
        draft_tokens: float | V = 0.0,
    ) -> V:
        predicted = self._base.predict(rows, context_tokens, prefill_tokens, draft_tokens)
        return self._ratio * (predicted + self._bias.at(rows))

    def predict_p90(
        self,
        rows: V,
        context_tokens: V,
        prefill_tokens: float | V = 0.0,
        draft_tokens: float | V = 0.0,
    ) -> V:
        predicted = self._base.predict_p90(rows, context_tokens, prefill_tokens, draft_tokens)
        return (self._tail.ratio * self._ratio) * (predicted + self._bias.at(rows))

    def observe(self, sample: StepSample) -> None:
        if sample.rows and not sample.prefill_tokens and sample.latency_s >= LEAST_LATENCY_S:
            self._newest.add(sample)
            if self.fitted:
                self._follow(sample)
        self._base.observe(sample)
        self.catch_up()

    def catch_up(self) -> None:
        """Correct anew if the base has come to predict differently: it was refitted, or a model
        was put in or taken out."""
        if self._base.version != self._base_version:
            self._start_anew()

    def refit_due(self, now_s: float) -> bool:
        return self._base.refit_due(now_s)

    def refit(self, now_s: float) -> None:
        self._base.refit(now_s)
        self.catch_up()

    def coefficients(self) -> Mapping[str, float]:
        known = self._base.coefficients()
        if not known:
            return known
        return {**known, "residual_ratio": self._ratio, "residual_p90_ratio": self._tail.ratio}

    def _follow(self, sample: StepSample) -> None:
        rows, context, drafts = (
            float(sample.rows),
            float(sample.context_tokens),
            float(sample.draft_tokens),
        )
        bias_s = self._bias.at(rows)
        base_s = self._base.predict(rows, context, 0.0, drafts) + bias_s
        high_s = self._base.predict_p90(rows, context, 0.0, drafts) + bias_s
        if not 0.0 < base_s < math.inf:
            return
        off = sample.latency_s / (self._ratio * base_s)
        error = min(max(math.log(off), -math.log(LARGEST_RATIO)), math.log(LARGEST_RATIO))
        self._count_run(error)
        if abs(self._run) == AGREEING_STEPS:
            self._tail.ratio = self._before_run[0]
        if abs(self._run) < AGREEING_STEPS:
            self._tail.follow(sample.latency_s / (self._ratio * max(high_s, LEAST_LATENCY_S)), off)
        if abs(self._run) >= CHANGED_STEPS and self._changed():
            return
        self._steps += 1
        if self._steps <= CHANGED_STEPS:
            self._first.append(sample.latency_s / base_s)
            self._set_ratio(median(self._first))
            return
        if abs(self._run) < AGREEING_STEPS:
            bound = max(OUTLIER, OUTLIER_SPREADS * self._tail.spread)
            error = min(max(error, -bound), bound)
        gain = max(MEMORY, 1.0 / self._steps)
        self._set_ratio(self._ratio * math.exp(gain * error))
        rest_s = math.expm1((1.0 - gain) * error) * base_s
        self._bias.follow(sample.rows, rest_s, base_s)

    def _count_run(self, error: float) -> None:
        if abs(error) <= max(OUTLIER, OUTLIER_SPREADS * self._tail.spread):
            self._run = 0
            return
        direction = 1 if error > 0 else -1
        if self._run * direction <= 0:
            self._run = 0
            self._before_run = (self._tail.ratio, self._ratio, self._bias.state())
        self._run += direction

    def _changed(self) -> bool:
        """Take a run of steps for a change of the machine, if their shapes were known."""
        newest = self._newest.last(CHANGED_STEPS)
        if newest.known(KNOWN_STEPS) < CHANGED_STEPS // 2:
            return False  # it is the shape that is new
        # What was learnt from the run's first steps was a part of the change.
        now = (self._ratio, self._bias.state())
        _, self._ratio, state = self._before_run
        self._bias.set_state(state)
        factor = self._median_off(newest.columns)
        if abs(math.log(factor)) < CHANGED:
            self._ratio = now[0]
            self._bias.set_state(now[1])
            return False
        newer, self._run = abs(self._run), 0
        self._steps = CHANGED_STEPS
        self._set_ratio(self._ratio * factor)
        self._newest.forget_older(newer)
        if isinstance(self._base, FollowsChange):
            # NOTE: the newest of them is told to the base right after this.
            self._base.machine_changed(newer - 1, factor)
        return True

    def _median_off(self, columns: NewestSteps.Columns) -> float:
        rows, context, drafts, latency = columns
        base_s = self._base.predict(rows, context, np.zeros(len(rows)), drafts)
        base_s = self._ratio * (base_s + self._bias.at(rows))
        factor = float(np.median(latency / np.maximum(base_s, LEAST_LATENCY_S)))
        return min(max(factor, 1.0 / LARGEST_RATIO), LARGEST_RATIO)

    def _start_anew(self) -> None:
        """The base predicts differently: correct what it says now by what was measured last."""
        self._base_version = self._base.version
        self._learn_floor()
        self._changes += 1
        self._run = 0
        self._first.clear()
        if not len(self._newest) or not self.fitted:
            self._set_ratio(1.0)
            self._steps = 0
            return
        rows, context, drafts, latency = self._newest.all()
        base_s = np.maximum(
            self._base.predict(rows, context, np.zeros(len(rows)), drafts), LEAST_LATENCY_S
        )
        high_s = self._base.predict_p90(rows, context, np.zeros(len(rows)), drafts)
        base_tail = float(np.median(high_s / base_s))
        self._tail.ratio *= self._base_tail / max(base_tail, LEAST_LATENCY_S)
        self._base_tail = base_tail
        off = latency / base_s
        self._set_ratio(float(np.median(off[-RATIO_FROM:])))
        self._steps = min(len(off), RATIO_FROM)
        self._first.extend(off[-CHANGED_STEPS:].tolist() if len(off) < CHANGED_STEPS else ())
        self._bias.restart(rows, latency / self._ratio - base_s)

    def _learn_floor(self) -> None:
        self._bias.least_rows_s = (
            self._base.least_rows_s(MOST_ROWS)
            if isinstance(self._base, KnowsRowCost)
            else np.zeros(MOST_ROWS + 1)
        )
        self._bias.shortest_s = float(self._base.predict(1.0, 0.0)) if self.fitted else 0.0

    def _set_ratio(self, ratio: float) -> None:
        self._ratio = min(max(ratio, 1.0 / LARGEST_RATIO), LARGEST_RATIO)
        if abs(self._ratio / self._told_ratio - 1.0) > NEWS:
            self._told_ratio = self._ratio
            self._changes += 1
