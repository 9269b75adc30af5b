"""Predictors by name."""

from __future__ import annotations

from importlib import import_module

from controller_service.predictors.base import StepLatencyPredictor
from controller_service.predictors.corrected import CorrectedPredictor

_PREDICTORS = {
    "published": "controller_service.predictors.linear:PublishedPredictor",
    "linear": "controller_service.predictors.linear:OnlineLinearPredictor",
    "boosted": "controller_service.predictors.boosted:BoostedPredictor",
    "constant": "controller_service.predictors.constant:ConstantPredictor",
}
"""Imported on use: LightGBM takes seconds to load, and only one of them needs it."""


CORRECTED = "corrected-"
"""Before a predictor's name: its predictions follow what was measured since it learnt."""


def predictor_names() -> tuple[str, ...]:
    return (*_PREDICTORS, *(CORRECTED + name for name in _PREDICTORS))


def check_predictor_name(name: str) -> None:
    """
    Raises:
        ValueError: no predictor has this name; names those that there are.
    """
    if name not in predictor_names():
        raise ValueError(f"no predictor {name!r}; choose one of {', '.join(predictor_names())}")


def make_predictor(name: str) -> StepLatencyPredictor:
    """A fresh, unfitted predictor.

    Raises:
        ValueError: no predictor has this name; names those that there are.
    """
    check_predictor_name(name)
    module, _, factory = _PREDICTORS[name.removeprefix(CORRECTED)].partition(":")
    predictor: StepLatencyPredictor = getattr(import_module(module), factory)()
    return CorrectedPredictor(predictor) if name.startswith(CORRECTED) else predictor
