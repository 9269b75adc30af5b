"""A model made ready to predict: everything that takes time is done here, off the loop."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from controller_service.learning.acceptance import AcceptanceModel
from controller_service.learning.model import StepModel
from controller_service.predictors.base import Floats, KnowsRowCost, V
from controller_service.predictors.bias import MOST_ROWS

MOST_CONTEXT = 1 << 22
CONTEXTS = 24


class Candidate(msgspec.Struct, frozen=True, eq=False):
    """A model, and what its rows cost at least."""

    model: StepModel
    model_id: str
    least_rows_s: Floats
    """Cumulated, shape ``(MOST_ROWS + 1,)``; see :class:`~.base.KnowsRowCost`."""
    acceptance: AcceptanceModel | None = None
    """How often drafts were right, if the model was fitted to an engine that speculates."""

    def scaled(self, factor: float) -> Candidate:
        """The same model on a machine whose steps take ``factor`` times as long."""
        return Candidate(
            ScaledModel(self.model, factor),
            self.model_id,
            factor * self.least_rows_s,
            self.acceptance,
        )


class ScaledModel:
    """A model times a factor."""

    def __init__(self, model: StepModel, factor: float) -> None:
        self.model, self.factor = model, factor
        if isinstance(model, ScaledModel):
            self.model, self.factor = model.model, factor * model.factor
        self.family = model.family

    def predict(
        self,
        rows: V,
        context_tokens: V,
        prefill_tokens: float | V = 0.0,
        draft_tokens: float | V = 0.0,
    ) -> V:
        predicted = self.model.predict(rows, context_tokens, prefill_tokens, draft_tokens)
        return self.factor * predicted

    def predict_p90(
        self,
        rows: V,
        context_tokens: V,
        prefill_tokens: float | V = 0.0,
        draft_tokens: float | V = 0.0,
    ) -> V:
        predicted = self.model.predict_p90(rows, context_tokens, prefill_tokens, draft_tokens)
        return self.factor * predicted

    def coefficients(self) -> Mapping[str, float]:
        return {**self.model.coefficients(), "machine_factor": self.factor}

    def files(self) -> Mapping[str, bytes]:
        """Of the model: the factor is of the hour, and is not stored."""
        return self.model.files()


def prepare(model: StepModel, model_id: str) -> Candidate:
    """Some milliseconds of work."""
    if isinstance(model, KnowsRowCost):
        return Candidate(model, model_id, model.least_rows_s(MOST_ROWS))
    return Candidate(model, model_id, _least_rows_s(model))


def _least_rows_s(model: StepModel) -> Floats:
    """Evaluated on a grid of contexts: models are interpolated in context, so that little can hide
    between two of them. :mod:`.bias` leaves a margin for it."""
    rows = np.arange(MOST_ROWS + 1, dtype=np.float64)
    contexts = np.concatenate([[0.0], np.geomspace(64.0, MOST_CONTEXT, CONTEXTS)])
    least = np.full(MOST_ROWS, np.inf)
    for context in contexts:
        grown = np.diff(model.predict(rows, np.full(len(rows), context)))
        np.minimum(least, grown, out=least)
    return np.concatenate([[0.0], np.cumsum(np.maximum(least, 0.0))])
