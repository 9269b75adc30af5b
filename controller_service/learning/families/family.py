"""What a family of models is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from controller_service.learning.model import StepModel
from controller_service.learning.samples import Samples

LEAST_DECODE_STEPS = 32
"""Fewer decode steps make no model."""


class NotEnough(ValueError):
    """There is too little to fit a model to; says what is missing."""


class Family(msgspec.Struct, frozen=True):
    """One way to model the latency of a step."""

    name: str
    summary: str
    """One line for people."""
    features: tuple[str, ...]
    """What its models look at. A stored model with other features is refused."""
    libraries: tuple[str, ...]
    """Distributions whose major version a stored model hangs on."""
    fit: Callable[[Samples, tuple[int, ...]], StepModel]
    """``fit(train, graph_rows)``; ``graph_rows``: batch sizes with a captured graph, rising, or
    none if they are not known. Deterministic.

    Raises:
        NotEnough: fewer than ``LEAST_DECODE_STEPS`` steps of decode alone."""
    load: Callable[[Mapping[str, bytes]], StepModel]
    """``load(files)``: the model that :meth:`StepModel.files` came from. Callers check hashes
    first: LightGBM's own parser is not made for hostile text.

    Raises:
        ValueError: a file is missing or does not hold what it should."""
