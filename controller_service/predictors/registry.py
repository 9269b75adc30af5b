"""Predictors by name."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from controller_service.predictors.base import StepLatencyPredictor
from controller_service.predictors.corrected import CorrectedPredictor
from controller_service.predictors.learned import LINE, LearnedPredictor, LearningHome

FITTED_FAMILIES = ("boosted", "extra_trees", "measured")
"""Families of models that are fitted in the background; see :mod:`..learning.families`."""

_PLAIN = {
    "published": "controller_service.predictors.linear:PublishedPredictor",
    "constant": "controller_service.predictors.constant:ConstantPredictor",
}
"""Predictors that take no models. Imported on use."""

_NAMES = ("published", LINE, *FITTED_FAMILIES, "constant")

CORRECTED = "corrected-"
"""Before a predictor's name: its predictions follow what was measured since it learnt."""


def predictor_names() -> tuple[str, ...]:
    return (*_NAMES, *(CORRECTED + name for name in _NAMES))


def check_predictor_name(name: str) -> None:
    """
    Raises:
        ValueError: no predictor has this name; names those that there are.
    """
    if name not in predictor_names():
        raise ValueError(f"no predictor {name!r}; choose one of {', '.join(predictor_names())}")


def make_predictor(name: str, home: LearningHome | None = None) -> StepLatencyPredictor:
    """A fresh, unfitted predictor.

    Args:
        home: where it lives; by default on its own, fitting models in place.

    Raises:
        ValueError: no predictor has this name; names those that there are.
    """
    check_predictor_name(name)
    base = name.removeprefix(CORRECTED)
    predictor = _plain(_PLAIN[base])() if base in _PLAIN else LearnedPredictor(base, home)
    return CorrectedPredictor(predictor) if name.startswith(CORRECTED) else predictor


def learned(predictor: StepLatencyPredictor) -> LearnedPredictor | None:
    """The part of ``predictor`` that takes models, if it has one."""
    inner = predictor.base if isinstance(predictor, CorrectedPredictor) else predictor
    return inner if isinstance(inner, LearnedPredictor) else None


def _plain(target: str) -> Callable[[], StepLatencyPredictor]:
    module, _, factory = target.partition(":")
    make: Callable[[], StepLatencyPredictor] = getattr(import_module(module), factory)
    return make
