"""Linear step latency: ``T(n, L) = a + b*n + c*L`` (TAPER, arXiv 2605.06914), plus ``d*prefill``.

Only steps without prefill teach a, b and c. What steps with prefill took beyond that, per prompt
token, is d: the median of the last ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from controller_service.predictors import least_squares
from controller_service.predictors.base import LEAST_LATENCY_S, Floats, StepSample, V
from controller_service.predictors.samples import RegimeBuffer, Window

LEAST_SAMPLES = 32
PREFILL_SAMPLES = 64


class LinearPredictor:
    """What both presets share: the formula, and what prefill adds."""

    name = "linear"

    def __init__(self) -> None:
        self.fitted = False
        self.version = 0
        self._a, self._b, self._c, self._d = 0.0, 0.0, 0.0, 0.0
        self._prefills = Window(PREFILL_SAMPLES)

    def predict(self, rows: V, context_tokens: V, prefill_tokens: float = 0.0) -> V:
        fixed = self._a + self._d * prefill_tokens
        return fixed + self._b * rows + self._c * context_tokens

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
        self.fitted = True
        self.version += 1

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

    def _remember(self, sample: StepSample) -> None:
        raise NotImplementedError

    def _fit(self, now_s: float) -> Floats | None:
        raise NotImplementedError


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
        return least_squares.towards_prior(self.buffer.design(self.OUTLIER_FACTOR))
