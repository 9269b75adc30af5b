"""Families of step-latency models: how each is fitted, stored and loaded.

=========== ====================================================================================
linear      a + b·rows + c·context, robust, nothing negative
boosted     a smooth backbone with the bends that GPUs show, and LightGBM on what it misses
extra_trees Extremely Randomized Trees read out into a table (Adaptive Resource Allocation)
measured    medians of what was measured, by rows and context
=========== ====================================================================================

All are compiled into a :class:`~controller_service.predictors.table.CompiledTable`. To add one:
write a module here with ``FAMILY = Family(...)`` and name it in ``_MODULES``.
"""

from __future__ import annotations

from importlib import import_module

from controller_service.learning.families.family import Family, NotEnough

_MODULES = {
    name: f"controller_service.learning.families.{name}"
    for name in ("linear", "boosted", "extra_trees", "measured")
}
"""Imported on use: LightGBM and scikit-learn take seconds to load."""

__all__ = ["Family", "NotEnough", "family", "family_names"]


def family_names() -> tuple[str, ...]:
    """Every family, the simplest first."""
    return tuple(_MODULES)


def family(name: str) -> Family:
    """
    Raises:
        ValueError: no family has this name; names those that there are.
    """
    if name not in _MODULES:
        raise ValueError(f"no family {name!r}; choose one of {', '.join(_MODULES)}")
    found: Family = import_module(_MODULES[name]).FAMILY
    return found
