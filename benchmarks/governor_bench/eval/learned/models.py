"""The models that are compared, fitted to the same samples; and models as predictors."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from controller_service.learning.families import family, family_names
from controller_service.learning.fit import fit
from controller_service.learning.model import EngineKey, StepModel
from controller_service.learning.samples import Samples
from controller_service.predictors.base import Floats, KnowsRowCost, StepSample, V
from controller_service.predictors.linear import PublishedPredictor

PUBLISHED = "published"
"""TAPER's predictor: no family, as it learns from the last 200 decode steps and no more."""
LINEAR = "linear"
NOBODY = EngineKey("", "", 1, "")
"""A fit is of some engine; which one is no matter here."""


def contender_names() -> tuple[str, ...]:
    """The straight lines first."""
    return (PUBLISHED, LINEAR, *(name for name in family_names() if name != LINEAR))


def fitted(name: str, train: Samples, graph_rows: tuple[int, ...]) -> StepModel:
    """One of :func:`contender_names`, fitted to ``train`` in its order."""
    if name == PUBLISHED:
        return _Published(train)
    return family(name).fit(train, graph_rows)


def choose(train: Samples, graph_rows: tuple[int, ...], seed: int) -> str:
    """The family that ``governor fit --family auto`` takes, from ``train`` alone."""
    return fit(train, NOBODY, family_names(), graph_rows, seed).manifest.family


class _Published:
    """TAPER's predictor after it has seen ``train``, as a model."""

    family = PUBLISHED

    def __init__(self, train: Samples) -> None:
        self._line = PublishedPredictor()
        for one in steps_of(train):
            self._line.observe(one)
        self._line.refit(0.0)
        self.predict = self._line.predict
        self.predict_p90 = self._line.predict_p90

    def coefficients(self) -> Mapping[str, float]:
        return self._line.coefficients()

    def files(self) -> Mapping[str, bytes]:
        return {"coefficients.json": msgspec.json.encode(dict(self.coefficients()))}


class ModelPredictor:
    """A model as a predictor that learns nothing more."""

    fitted = True
    version = 0

    def __init__(self, model: StepModel) -> None:
        self._model = model

    @property
    def name(self) -> str:
        return self._model.family

    def least_rows_s(self, most_rows: int) -> Floats:
        """What the model promises that rows cost; nothing, if it makes no such promise."""
        if isinstance(self._model, KnowsRowCost):
            return self._model.least_rows_s(most_rows)
        return np.zeros(most_rows + 1)

    def predict(
        self,
        rows: V,
        context_tokens: V,
        prefill_tokens: float | V = 0.0,
        draft_tokens: float | V = 0.0,
    ) -> V:
        return self._model.predict(rows, context_tokens, prefill_tokens, draft_tokens)

    def predict_p90(
        self,
        rows: V,
        context_tokens: V,
        prefill_tokens: float | V = 0.0,
        draft_tokens: float | V = 0.0,
    ) -> V:
        return self._model.predict_p90(rows, context_tokens, prefill_tokens, draft_tokens)

    def observe(self, sample: StepSample) -> None:
        """It was fitted once."""

    def refit_due(self, now_s: float) -> bool:
        return False

    def refit(self, now_s: float) -> None:
        """It was fitted once."""

    def coefficients(self) -> Mapping[str, float]:
        return self._model.coefficients()


def steps_of(samples: Samples) -> list[StepSample]:
    """The samples one by one."""
    return [
        StepSample(int(rows), int(context), int(prefill), float(latency_s), int(draft))
        for rows, context, prefill, draft, latency_s in zip(
            samples.rows,
            samples.context_tokens,
            samples.prefill_tokens,
            samples.draft_tokens,
            samples.latency_s,
            strict=True,
        )
    ]
