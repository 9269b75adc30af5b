"""Predictors by name."""

from __future__ import annotations

from importlib import import_module

from controller_service.predictors.base import StepLatencyPredictor

_PREDICTORS = {
    "published": "controller_service.predictors.linear:PublishedPredictor",
    "linear": "controller_service.predictors.linear:OnlineLinearPredictor",
    "boosted": "controller_service.predictors.boosted:BoostedPredictor",
}
"""Imported on use: LightGBM takes seconds to load, and only one of them needs it."""


def predictor_names() -> tuple[str, ...]:
    return tuple(_PREDICTORS)


def check_predictor_name(name: str) -> None:
    """
    Raises:
        ValueError: no predictor has this name; names those that there are.
    """
    if name not in _PREDICTORS:
        raise ValueError(f"no predictor {name!r}; choose one of {', '.join(_PREDICTORS)}")


def make_predictor(name: str) -> StepLatencyPredictor:
    """A fresh, unfitted predictor.

    Raises:
        ValueError: no predictor has this name; names those that there are.
    """
    check_predictor_name(name)
    module, _, factory = _PREDICTORS[name].partition(":")
    predictor: StepLatencyPredictor = getattr(import_module(module), factory)()
    return predictor
