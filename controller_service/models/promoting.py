"""A candidate against what predicts now."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import msgspec

from controller_service.learning.model import EngineKey, StepModel
from controller_service.learning.refit import RefitFailed, better
from controller_service.learning.samples import Samples
from controller_service.models.desk import ModelDesk
from controller_service.models.errors import NotPromoted, sessions_of, takes_none
from controller_service.models.loading import describe, load
from controller_service.predictors.base import StepLatencyPredictor
from controller_service.predictors.candidate import Candidate
from controller_service.predictors.learned import LearnedPredictor
from controller_service.predictors.registry import learned
from controller_service.sessions import Sessions

T = TypeVar("T")
OnLoop = Callable[[Callable[[], T]], T]


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


def _targets(sessions: Sessions, engine_id: str) -> list[Target]:
    targets = []
    known = sessions_of(sessions, engine_id)
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
        raise NotPromoted("predictor", "predictor", takes_none(known[0].predictor.name))
    return targets
