"""Everything about models that outlives an engine."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from governor_protos.messages import Hello

from controller_service.learning.acceptance import AcceptanceModel
from controller_service.learning.counts import LearningCounts
from controller_service.learning.families import family
from controller_service.learning.model import EngineKey
from controller_service.learning.refit import BackgroundRefits
from controller_service.models.errors import NotPromoted, sessions_of, takes_none
from controller_service.models.loading import describe, engine_key, load
from controller_service.predictors.base import StepLatencyPredictor
from controller_service.predictors.candidate import Candidate
from controller_service.predictors.corrected import CorrectedPredictor
from controller_service.predictors.learned import LearningHome
from controller_service.predictors.registry import FITTED_FAMILIES, learned, make_predictor
from controller_service.service.fits import ProcessFits
from controller_service.sessions import Sessions

if TYPE_CHECKING:
    from controller_service.models.promoting import Target

logger = logging.getLogger(__name__)

MOST_SHELVED = 64
"""Models kept for engines that come later."""


class ModelDesk:
    """Everything about models that outlives an engine."""

    def __init__(self, predictor: str) -> None:
        """
        Args:
            predictor: name of the predictor that every engine gets.

        Raises:
            ValueError: no predictor has this name.
        """
        self.counts = LearningCounts()
        self.refits = BackgroundRefits()
        self.length_fits = ProcessFits()
        self._predictor = predictor
        self._bad: dict[str, None] = {}
        self._shelf: dict[EngineKey, Candidate] = {}  # longest there first
        inner = learned(make_predictor(predictor))
        self._learns = inner is not None
        if inner is not None and inner.name in FITTED_FAMILIES:
            family(inner.name)  # its library is loaded now, and not between two snapshots

    def load_at_start(self, folder: str) -> None:
        """Load the model that engines are to start with.

        Raises:
            ValueError: it cannot be used, and why.
        """
        if not self._learns:
            raise ValueError(f"--model {folder}: {takes_none(self._predictor)}")
        try:
            engine, candidate = load(folder)
        except NotPromoted as error:
            raise ValueError(f"--model {folder}: {error}") from error
        self._put(engine, candidate)

    def new_predictor(self, hello: Hello) -> StepLatencyPredictor:
        """A predictor for an engine that has just introduced itself, with its model if there is
        one."""
        engine = engine_key(hello)
        home = LearningHome(
            hello.engine_id,
            engine,
            tuple(hello.graph_rows),
            self.refits,
            self.counts,
            self._bad,
        )
        predictor = make_predictor(self._predictor, home)
        inner = learned(predictor)
        if inner is None or not self._shelf:
            return predictor
        candidate = self._shelf.get(engine)
        if candidate is None:
            self.counts.refusals["engine"] += 1
            logger.warning(
                "engine %s: no model was fitted to %s; it runs with the online line",
                *(hello.engine_id, describe(engine)),
            )
        elif candidate.model_id not in self._bad:
            inner.install(candidate, "loaded")
            _catch_up(predictor)
        return predictor

    def acceptance_prior(self, hello: Hello) -> AcceptanceModel | None:
        """How often drafts were right on this engine, by the model that is kept for it."""
        candidate = self._shelf.get(engine_key(hello))
        return None if candidate is None else candidate.acceptance

    def install(self, target: Target, candidate: Candidate) -> None:
        """Have ``target`` predict by ``candidate``. On the loop."""
        self._bad.pop(candidate.model_id, None)
        target.inner.install(candidate, "promoted")
        _catch_up(target.predictor)
        self._put(target.engine, candidate)

    def shelve(self, engine: EngineKey, candidate: Candidate) -> None:
        """Keep a model for engines that are not here yet. On the loop."""
        self._put(engine, candidate)

    def roll_back(self, sessions: Sessions, engine_id: str) -> list[dict[str, str]]:
        """Take the model of one engine, or of all, back. On the loop.

        Raises:
            NotPromoted: no such engine, or no model predicts.
        """
        rolled = []
        for session in sessions_of(sessions, engine_id):
            inner = learned(session.predictor)
            if inner is None or inner.model is None:
                continue
            taken = inner.roll_back("asked to")
            _catch_up(session.predictor)
            shelved = self._shelf.get(inner.home.engine)
            if shelved is not None and shelved.model_id == taken.model_id:
                del self._shelf[inner.home.engine]
            rolled.append(
                {
                    "engine": session.hello.engine_id,
                    "model": taken.model_id,
                    "predicts_by": inner.model_id or "the online line",
                }
            )
        if not rolled:
            raise NotPromoted("engine", "no_model", "no model predicts, nothing to roll back")
        return rolled

    def count_refusal(self, reason: str) -> None:
        """On the loop."""
        self.counts.refusals[reason] += 1

    def close(self) -> None:
        """End what runs in the background."""
        self.refits.close()
        self.length_fits.close()

    def _put(self, engine: EngineKey, candidate: Candidate) -> None:
        self._shelf.pop(engine, None)
        self._shelf[engine] = candidate
        if len(self._shelf) > MOST_SHELVED:
            del self._shelf[next(iter(self._shelf))]


def _catch_up(predictor: StepLatencyPredictor) -> None:
    if isinstance(predictor, CorrectedPredictor):
        predictor.catch_up()
