"""Distributions of prompt and output lengths, in tokens."""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

MAX_TOKENS = 1 << 20

Tokens = Annotated[int, Meta(ge=1, le=MAX_TOKENS)]
Ints = NDArray[np.int64]


class Lognormal(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag=str.lower
):
    """Long-tailed, as lengths of real requests are."""

    mean: Annotated[float, Meta(ge=1, le=MAX_TOKENS)]
    """Before clipping."""
    cv: Annotated[float, Meta(gt=0, le=20)]
    """Standard deviation over mean, before clipping."""
    min: Tokens = 1
    max: Tokens = MAX_TOKENS

    def __post_init__(self) -> None:
        _ordered(self.min, self.max)

    def draw(self, rng: np.random.Generator, count: int) -> Ints:
        variance = np.log1p(self.cv**2)
        normal = rng.standard_normal(count)
        values = np.exp(np.log(self.mean) - variance / 2 + np.sqrt(variance) * normal)
        clipped: Ints = np.rint(np.clip(values, self.min, self.max)).astype(np.int64)
        return clipped

    def describe(self) -> str:
        return (
            f"lognormal, mean {self.mean:g} and cv {self.cv:g} before clipping to "
            f"{self.min}-{self.max} tokens"
        )


class Uniform(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag=str.lower
):
    """Every length from ``min`` to ``max``, both included, is equally likely."""

    min: Tokens
    max: Tokens

    def __post_init__(self) -> None:
        _ordered(self.min, self.max)

    def draw(self, rng: np.random.Generator, count: int) -> Ints:
        span = self.max - self.min + 1
        drawn: Ints = self.min + np.floor(rng.random(count) * span).astype(np.int64)
        return drawn

    def describe(self) -> str:
        return f"uniform, {self.min}-{self.max} tokens"


class Constant(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag=str.lower
):
    """One length for all."""

    tokens: Tokens

    def draw(self, rng: np.random.Generator, count: int) -> Ints:
        return np.full(count, self.tokens, dtype=np.int64)

    def describe(self) -> str:
        return f"{self.tokens} tokens"


Lengths = Lognormal | Uniform | Constant


def _ordered(low: int, high: int) -> None:
    if low > high:
        raise ValueError(f"min: {low} is above max, {high}; swap them")
