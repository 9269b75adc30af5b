"""What every fitted model of step latency can do, and whose it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from controller_service.predictors.base import V


class EngineKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model's step times hang on. Between engines that differ in any of these, none of a
    model's numbers carries over."""

    model: str
    device: str
    tp_size: int
    sglang_version: str


class StepModel(Protocol):
    """Step latency as it was fitted: frozen, pure, and quick enough for every step.

    ``predict`` never falls when a row, a context token, a prefill token or a draft token is added.
    """

    @property
    def family(self) -> str: ...

    def predict(
        self,
        rows: V,
        context_tokens: V,
        prefill_tokens: float | V = 0.0,
        draft_tokens: float | V = 0.0,
    ) -> V:
        """Mean latency in seconds; see :class:`~controller_service.predictors.base`."""
        ...

    def predict_p90(
        self,
        rows: V,
        context_tokens: V,
        prefill_tokens: float | V = 0.0,
        draft_tokens: float | V = 0.0,
    ) -> V:
        """Latency in seconds that nine steps in ten stay below."""
        ...

    def coefficients(self) -> Mapping[str, float]:
        """What was learnt, for people: names carry units."""
        ...

    def files(self) -> Mapping[str, bytes]:
        """Everything that is needed to load it again, by file name. No pickle."""
        ...
