"""How a machine's step times differ from its profile's: noise, and a change of the machine."""

from __future__ import annotations

import random
from typing import Annotated

import msgspec
from msgspec import Meta

LIMIT_SD = 4.0
"""Noise is drawn again beyond this many standard deviations."""


class Shift(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From one step on, every step takes ``factor`` times as long: a machine that has changed."""

    at_step: Annotated[int, Meta(ge=1, le=1 << 53)]
    """The first step that takes longer; the first step of all is 1."""
    factor: Annotated[float, Meta(ge=0.01, le=100)]

    @classmethod
    def parse(cls, text: str) -> Shift:
        """Read ``STEP:FACTOR``.

        Raises:
            ValueError: it is not of that form, or out of bounds.
        """
        step, colon, factor = text.partition(":")
        if not colon:
            raise ValueError(f"a shift is STEP:FACTOR, such as 1000:1.5, not {text[:40]!r}")
        try:
            return msgspec.convert({"at_step": step, "factor": factor}, cls, strict=False)
        except msgspec.ValidationError as error:
            raise ValueError(
                f"a shift is STEP:FACTOR, such as 1000:1.5, not {text[:40]!r}: {error}"
            ) from error


Noise = Annotated[float, Meta(ge=0, le=0.2)]
"""Relative standard deviation of a step's duration; 0.2 at most, so that none becomes negative."""


class StepVariation:
    """Varies step times; equal seeds vary equal sequences equally.

    Args:
        noise: relative standard deviation of each step's duration.
        seed: of the noise.
        shift: a change of the machine, or None.
    """

    def __init__(self, noise: float = 0.0, seed: int = 0, shift: Shift | None = None) -> None:
        self._noise = noise
        self._random = random.Random(f"step noise {seed}")  # noqa: S311 - noise, no secret
        self._shift = shift

    def vary(self, step_s: float, step: int) -> float:
        """What a step takes here.

        Args:
            step_s: what the profile says.
            step: number of the step, counted from 1.
        """
        shift = self._shift
        if shift is not None and step >= shift.at_step:
            step_s *= shift.factor
        if self._noise:
            deviation = self._random.gauss(0.0, 1.0)
            while abs(deviation) > LIMIT_SD:
                deviation = self._random.gauss(0.0, 1.0)
            step_s *= 1.0 + self._noise * deviation
        return step_s
