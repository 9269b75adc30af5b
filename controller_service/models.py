"""The models of a controller: loaded from folders, judged, installed, taken back.

Loading and judging take time and run where the caller is, an HTTP thread or the start of the
controller; what touches an engine's predictor is handed to the loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from governor_protos.messages import Hello

from controller_service.learning.counts import LearningCounts
from controller_service.learning.families import family
from controller_service.learning.model import EngineKey, StepModel
from controller_service.learning.refit import BackgroundRefits, RefitFailed, better
from controller_service.learning.samples import Samples
from controller_service.predictors.base import StepLatencyPredictor
from controller_service.predictors.candidate import Candidate, prepare
from controller_service.predictors.corrected import CorrectedPredictor
from controller_service.predictors.learned import LearnedPredictor, LearningHome
from controller_service.predictors.registry import (
    CORRECTED,
    FITTED_FAMILIES,
    learned,
    make_predictor,
)
from controller_service.session import EngineSession
from controller_service.sessions import Sessions

logger = logging.getLogger(__name__)

T = TypeVar("T")
OnLoop = Callable[[Callable[[], T]], T]

MOST_SHELVED = 64
"""Models kept for engines that come later."""


class NotPromoted(ValueError):
    """A model that was not taken."""

    def __init__(self, field: str, reason: str, message: str, status: int = 409) -> None:
        super().__init__(message)
        self.field = field
        """What of the request was at fault."""
        self.reason = reason
        """Machine-readable, and the label under which it was counted."""
        self.status = status


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
            raise ValueError(f"--model {folder}: {_takes_none(self._predictor)}")
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
        for session in _sessions(sessions, engine_id):
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

    def _put(self, engine: EngineKey, candidate: Candidate) -> None:
        self._shelf.pop(engine, None)
        self._shelf[engine] = candidate
        if len(self._shelf) > MOST_SHELVED:
            del self._shelf[next(iter(self._shelf))]


class Target(msgspec.Struct, frozen=True, eq=False):
    """An engine whose predictor takes models, and what a model has to beat there."""

    engine_id: str
    engine: EngineKey
    predictor: StepLatencyPredictor
    inner: LearnedPredictor
    held_out: Samples
    incumbent: StepModel | None
    model_id: str
    bad: frozenset[str]


def promote(
    folder: str,
    engine_id: str,
    force: bool,
    sessions: Sessions,
    desk: ModelDesk,
    on_loop: OnLoop[Any],
) -> dict[str, Any]:
    """Load a model, compare it with what predicts now, and install it where it is better.

    Called off the loop. With no engine connected, the model is kept for those that come.

    Args:
        engine_id: the engine; empty for all that the model was fitted to.
        force: install it even if it is no better, too little is known, or it was rolled back.

    Raises:
        NotPromoted: no engine took it.
    """
    try:
        return _promote(folder, engine_id, force, sessions, desk, on_loop)
    except NotPromoted as error:
        reason = error.reason
        on_loop(lambda: desk.count_refusal(reason))
        raise


def _promote(
    folder: str,
    engine_id: str,
    force: bool,
    sessions: Sessions,
    desk: ModelDesk,
    on_loop: OnLoop[Any],
) -> dict[str, Any]:
    engine, candidate = load(folder)
    targets: list[Target] = on_loop(lambda: _targets(sessions, engine_id))
    wanted = [target for target in targets if target.engine == engine]
    if targets and not wanted:
        there = ", ".join(f"{one.engine_id}: {describe(one.engine)}" for one in targets)
        raise NotPromoted(
            "engine", "engine", f"the model was fitted to {describe(engine)}; here: {there}"
        )
    results, last = [], None
    for target in wanted:
        try:
            why = "forced" if force else _judge(target, candidate)
        except NotPromoted as error:
            last = error
            results.append({"engine": target.engine_id, "result": error.reason, "why": str(error)})
            continue
        on_loop(partial(desk.install, target, candidate))
        results.append({"engine": target.engine_id, "result": "promoted", "why": why})
    if last is not None and all(result["result"] != "promoted" for result in results):
        raise last
    if not targets:
        on_loop(lambda: desk.shelve(engine, candidate))
    return {
        "model": candidate.model_id,
        "family": candidate.model.family,
        "engines": results,
    }


def _judge(target: Target, candidate: Candidate) -> str:
    if candidate.model_id == target.model_id:
        raise NotPromoted("path", "same", f"engine {target.engine_id} predicts by it already")
    if candidate.model_id in target.bad:
        raise NotPromoted(
            "path",
            "rolled_back",
            f"model {candidate.model_id} was rolled back before; promote it with force if it is "
            "to be tried again",
        )
    if target.incumbent is None:
        return "nothing predicted before"
    try:
        promotes, why = better(candidate.model, target.incumbent, target.held_out)
    except RefitFailed as error:
        raise NotPromoted(
            "path", "too_few_steps", f"engine {target.engine_id}: {error}; wait, or use force"
        ) from error
    if not promotes:
        raise NotPromoted(
            "path",
            "not_better",
            f"engine {target.engine_id}: {why}; force installs it all the same",
        )
    return why


def load(folder: str) -> tuple[EngineKey, Candidate]:
    """A model from its folder, checked and ready, and the engine that it was fitted to.

    Raises:
        NotPromoted: the folder does not hold a model that can be used.
    """
    from controller_service.learning.artifact import (  # noqa: PLC0415 - needed by few
        ModelRefused,
        load_model,
    )

    try:
        loaded = load_model(Path(folder), None)
    except ModelRefused as error:
        raise NotPromoted("path", error.reason, str(error), 400) from error
    return loaded.manifest.engine, prepare(loaded.model, loaded.manifest.model_id)


def engine_key(hello: Hello) -> EngineKey:
    """What the step times of this engine hang on."""
    return EngineKey(hello.model, hello.device, hello.tp_size, hello.sglang_version)


def describe(engine: EngineKey) -> str:
    """For people."""
    return (
        f"{engine.model} on {engine.device or 'an unknown device'}, tp {engine.tp_size}, "
        f"SGLang {engine.sglang_version}"
    )


def model_status(session: EngineSession) -> dict[str, Any]:
    """What an engine predicts by, as JSON types. On the loop."""
    predictor, inner = session.predictor, learned(session.predictor)
    ratio = predictor.correction_ratio if isinstance(predictor, CorrectedPredictor) else None
    shown: dict[str, Any] = {
        "engine": session.hello.engine_id,
        "predictor": predictor.name,
        "takes_models": inner is not None,
        "correction_ratio": ratio,
    }
    if inner is None:
        return {**shown, "model": None, "family": None, "previous": None, "watched": False}
    model, previous = inner.model, inner.previous
    return {
        **shown,
        "model": None if model is None else model.model_id,
        "family": None if model is None else model.model.family,
        "previous": None if previous is None else previous.model_id,
        "watched": inner.watched,
        "fitted_to": describe(inner.home.engine),
        "held_out_steps": len(inner.held_out()),
        "rolled_back": list(inner.home.bad),
    }


def _targets(sessions: Sessions, engine_id: str) -> list[Target]:
    targets = []
    known = _sessions(sessions, engine_id)
    for session in known:
        inner = learned(session.predictor)
        if inner is None:
            continue
        incumbent = inner.incumbent()
        targets.append(
            Target(
                session.hello.engine_id,
                inner.home.engine,
                session.predictor,
                inner,
                inner.held_out(),
                incumbent.model if isinstance(incumbent, Candidate) else incumbent,
                inner.model_id,
                frozenset(inner.home.bad),
            )
        )
    if known and not targets:
        raise NotPromoted("predictor", "predictor", _takes_none(known[0].predictor.name))
    return targets


def _sessions(sessions: Sessions, engine_id: str) -> list[EngineSession]:
    known = [session for session, _ in sessions if engine_id in ("", session.hello.engine_id)]
    if engine_id and not known:
        raise NotPromoted(
            "engine", "no_engine", f"no engine {engine_id!r}; /v1/status lists them", 404
        )
    return known


def _takes_none(predictor: str) -> str:
    better_name = f"{CORRECTED}linear"
    return f"predictor {predictor} takes no models; start with --predictor {better_name}"


def _catch_up(predictor: StepLatencyPredictor) -> None:
    if isinstance(predictor, CorrectedPredictor):
        predictor.catch_up()
