"""What an engine predicts by, for people."""

from __future__ import annotations

from typing import Any

from controller_service.models.loading import describe
from controller_service.predictors.corrected import CorrectedPredictor
from controller_service.predictors.registry import learned
from controller_service.session import EngineSession


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
