"""Linear step latency: ``T(n, L) = a + b*n + c*L`` (TAPER, arXiv 2605.06914), plus ``d*prefill``.

Only steps without prefill teach a, b and c. What steps with prefill took beyond that, per prompt
token, is d: the median of the last ones. A draft token that is verified counts as a row without a
context of its own: it is one more token in every matrix product, and reads no KV of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from controller_service.predictors import least_squares
from controller_service.predictors.base import LEAST_LATENCY_S, P90, Floats, StepSample, V
from controller_service.predictors.samples import (
    LEAST_NET,
    Design,
    RegimeBuffer,
    WeightedDesign,
    Window,
)

LEAST_SAMPLES = 32
PREFILL_SAMPLES = 64


class LinearPredictor:
    """What both presets share: the formula, and what prefill adds."""

    name = "linear"

    def __init__(self) -> None:
        self.fitted = False
        self.version = 0
        self._a, self._b, self._c, self._d = 0.0, 0.0, 0.0, 0.0
        self._p90 = 1.0
        self._prefills = Window(PREFILL_SAMPLES)

    def predict(
        self,
        rows: V,
        context_tokens: V,
        prefill_tokens: float | V = 0.0,
        draft_tokens: float | V = 0.0,
    ) -> V:
        fixed: Any = self._a + self._d * prefill_tokens + self._b * draft_tokens
        step_s: V = fixed + self._b * rows + self._c * context_tokens
        return step_s

    def predict_p90(
        self,
        rows: V,
        context_tokens: V,
        prefill_tokens: float | V = 0.0,
        draft_tokens: float | V = 0.0,
    ) -> V:
        return self._p90 * self.predict(rows, context_tokens, prefill_tokens, draft_tokens)

    def least_rows_s(self, most_rows: int) -> Floats:
        return np.arange(most_rows + 1, dtype=np.float64) * self._b

    def prefill_s(self, prefill_tokens: float) -> float:
        """What ``prefill_tokens`` riding along add to a step."""
        return self._d * prefill_tokens

    @property
    def abc(self) -> tuple[float, float, float]:
        """Seconds, seconds a row, seconds a context token."""
        return self._a, self._b, self._c

    def observe(self, sample: StepSample) -> None:
        if not sample.latency_s >= LEAST_LATENCY_S:  # a NaN is refused, too
            return
        if sample.prefill_tokens:
            self._prefills.add(sample)
        elif sample.rows:
            self._remember(sample)

    def refit(self, now_s: float) -> None:
        solution = self._fit(now_s)
        if solution is None:
            return
        self._a, self._b, self._c = (float(value) for value in solution)
        self._d = self._prefill_cost()
        self._p90 = self._tail()
        self.fitted = True
        self.version += 1

    def frozen(self) -> FrozenLine:
        """The line as it is now."""
        return FrozenLine(self)

    def coefficients(self) -> Mapping[str, float]:
        if not self.fitted:
            return {}
        return {
            "a_s": self._a,
            "b_s_per_row": self._b,
            "c_s_per_token": self._c,
            "d_s_per_prefill_token": self._d,
        }

    def _prefill_cost(self) -> float:
        if not len(self._prefills):
            return 0.0
        rows, context, latency = self._prefills.design()
        beyond = latency - (self._a + self._b * rows + self._c * context)
        return max(0.0, float(np.median(beyond / self._prefills.prefill_tokens())))

    def _tail(self) -> float:
        """The ratio of measured to fitted time that nine samples in ten stay below."""
        rows, context, latency = self._samples()
        fitted = self._a + self._b * rows + self._c * context
        return max(1.0, float(np.quantile(latency / np.maximum(fitted, LEAST_LATENCY_S), P90)))

    def _remember(self, sample: StepSample) -> None:
        raise NotImplementedError

    def _samples(self) -> Design:
        """What the newest fit was made from."""
        raise NotImplementedError

    def _fit(self, now_s: float) -> Floats | None:
        raise NotImplementedError


class FrozenLine:
    """A line as it was, as a model: what a candidate has to beat while the line learns on."""

    family = "linear"

    def __init__(self, line: LinearPredictor) -> None:
        self._line = copy.copy(line)  # a refit replaces coefficients, and these are kept

    def predict(
        self,
        rows: V,
        context_tokens: V,
        prefill_tokens: float | V = 0.0,
        draft_tokens: float | V = 0.0,
    ) -> V:
        return self._line.predict(rows, context_tokens, prefill_tokens, draft_tokens)

    def predict_p90(
        self,
        rows: V,
        context_tokens: V,
        prefill_tokens: float | V = 0.0,
        draft_tokens: float | V = 0.0,
    ) -> V:
        return self._line.predict_p90(rows, context_tokens, prefill_tokens, draft_tokens)

    def coefficients(self) -> Mapping[str, float]:
        return self._line.coefficients()

    def files(self) -> Mapping[str, bytes]:
        """None: it is compared with, and never stored."""
        return {}


class PublishedPredictor(LinearPredictor):
    """As published: least squares on the last 200 steps, at least 32, every 600 s.

    Nothing guards it against outliers or against batches that all look alike: it is here to be
    compared with.
    """

    name = "published"
    WINDOW = 200
    REFIT_EVERY_S = 600.0

    def __init__(self) -> None:
        super().__init__()
        self._window = Window(self.WINDOW)
        self._next_fit_s = float("-inf")

    def refit_due(self, now_s: float) -> bool:
        return now_s >= self._next_fit_s and len(self._window) >= LEAST_SAMPLES

    def _remember(self, sample: StepSample) -> None:
        self._window.add(sample)

    def _samples(self) -> Design:
        return self._window.design()

    def _fit(self, now_s: float) -> Floats | None:
        self._next_fit_s = now_s + self.REFIT_EVERY_S
        return least_squares.published(self._window.design())


class OnlineLinearPredictor(LinearPredictor):
    """Refitted every 64 steps, at most four times a second, from a memory that keeps rare regimes.

    A fit takes some 0.5 ms of the controller's one thread: bounding its rate keeps it out of the
    99th percentile of decision latency however fast steps come. Samples further than 2.5 times from
    the median of their regime are left out of the fit.
    """

    name = "linear"
    REFIT_EVERY_STEPS = 64
    REFIT_APART_S = 0.25
    OUTLIER_FACTOR = 2.5
    """Batches of one regime differ by less: up to twice the rows, and twice the context."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = RegimeBuffer()
        none = np.zeros(0)
        self._design: WeightedDesign = none, none, none, none
        self._since_fit = 0
        self._next_fit_s = float("-inf")

    def refit_due(self, now_s: float) -> bool:
        if now_s < self._next_fit_s:
            return False
        wanted = self.REFIT_EVERY_STEPS if self.fitted else 1
        return self._since_fit >= wanted and len(self.buffer) >= LEAST_SAMPLES

    def _remember(self, sample: StepSample) -> None:
        self.buffer.add(sample)
        self._since_fit += 1

    def _fit(self, now_s: float) -> Floats | None:
        self._since_fit = 0
        self._next_fit_s = now_s + self.REFIT_APART_S
        rows, context, drafts, latency, weight = self.buffer.design(self.OUTLIER_FACTOR)
        if self.fitted:
            # What verifying costs is corrected by those who know of drafting, by what it is thought
            # to cost here: to learn it from the same steps would be to chase one's own tail.
            latency = np.maximum(latency - self._b * drafts, LEAST_NET * latency)
        else:
            rows = rows + drafts
        self._design = rows, context, latency, weight
        return least_squares.towards_prior(self._design)

    def _samples(self) -> Design:
        # NOTE: of what outliers there were, the design has none: a p90 is of usual steps.
        rows, context, latency, weight = self._design
        new = weight >= np.median(weight)
        return rows[new], context[new], latency[new]

    def machine_changed(self, newer_steps: int, factor: float) -> None:
        """Steps have taken ``factor`` times as long for ``newer_steps`` observed ones: carry what
        is older over, so that the next fit does not mix two machines."""
        self.buffer.carry_over(newer_steps, factor)
        self._since_fit = self.REFIT_EVERY_STEPS
