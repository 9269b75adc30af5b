"""How often an engine's drafts are right: a process of its own for each request.

Everything is drawn per position of the output, before anything runs: whether the token at a
position is the draft's first choice, its second, and so on. Whatever a policy drafts, it meets the
same luck.
"""

from __future__ import annotations

import itertools
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from governor_workloads.streams import Attribute

Level = Annotated[float, Meta(ge=0.0, le=1.0)]
MOST_CHOICES = 255
EDGE = 0.005
LEAST_VARIANCE = 1e-12
"""Of the level between requests; below it they are alike."""
LONGEST_STRETCH = 1e9


class LevelShift(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From request ``from_request`` on, in order of sending, the mean level is ``level``."""

    from_request: Annotated[int, Meta(ge=0, le=1 << 31)]
    level: Level


class Luck(NamedTuple):
    """One row's process, by position of its output. Columns of shape ``(tokens,)``."""

    level: npt.NDArray[np.float64]
    """Chance that the draft's first choice is right, given that the text so far is."""
    choice: npt.NDArray[np.int64]
    """Which of the draft's choices is right: 1 is its first."""


class Acceptance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Levels of requests, and how they move along a request's output."""

    level: Level
    """Mean over requests."""
    spread: Annotated[float, Meta(ge=0, le=0.45)] = 0.0
    """Standard deviation between requests (a beta distribution)."""
    drift: Annotated[float, Meta(ge=0, le=5)] = 0.0
    """How far a request's level wanders: standard deviation of its log-odds."""
    drift_tokens: Annotated[int, Meta(ge=1, le=1 << 20)] = 64
    """Tokens over which it wanders that far."""
    burst_share: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """Share of the output in stretches of text that is hard to guess."""
    burst_tokens: Annotated[int, Meta(ge=1, le=1 << 20)] = 16
    """Mean length of such a stretch (geometric)."""
    burst_factor: Level = 0.4
    """What the level is multiplied by in it."""
    shifts: Annotated[tuple[LevelShift, ...], Meta(max_length=4096)] = ()

    def __post_init__(self) -> None:
        starts = [shift.from_request for shift in self.shifts]
        if any(late <= early for early, late in itertools.pairwise(starts)):
            raise ValueError(f"shifts: from_request must rise from one to the next, got {starts}")

    def luck(self, seed: int, request: int, branch: int, tokens: int) -> Luck:
        """The process of one row, the same whenever it is asked for.

        Args:
            request: its index in the workload.
            tokens: positions to draw; more of them leave those before as they are.
        """
        streams = [
            np.random.Generator(
                np.random.PCG64(
                    np.random.SeedSequence(
                        entropy=seed,
                        spawn_key=(int(Attribute.ACCEPTANCE), request, branch, number),
                    )
                )
            )
            for number in range(4)
        ]
        level = self._levels(streams, request, tokens)
        uniform = streams[3].random(tokens)
        # The r-th choice is right with chance a * (1 - a) ** (r - 1).
        choice = 1.0 + np.floor(np.log1p(-uniform) / np.log1p(-level))
        return Luck(level, np.minimum(choice, MOST_CHOICES).astype(np.int64))

    def mean_of(self, request: int) -> float:
        """The mean level at a request's place in the workload."""
        level = self.level
        for shift in self.shifts:
            if request >= shift.from_request:
                level = shift.level
        return level

    def _levels(
        self, streams: list[np.random.Generator], request: int, tokens: int
    ) -> npt.NDArray[np.float64]:
        own = _beta(streams[0], self.mean_of(request), self.spread)
        level = np.full(tokens, own)
        if self.drift:
            knots = streams[1].standard_normal(tokens // self.drift_tokens + 2)
            places = np.arange(len(knots)) * self.drift_tokens
            wandered = self.drift * np.interp(np.arange(tokens), places, knots)
            level = 1.0 / (1.0 + (1.0 / own - 1.0) * np.exp(-wandered))
        if self.burst_share:
            level = np.where(self._in_burst(streams[2], tokens), level * self.burst_factor, level)
        return np.clip(level, EDGE, 1.0 - EDGE)

    def _in_burst(self, rng: np.random.Generator, tokens: int) -> npt.NDArray[np.bool_]:
        calm_tokens = self.burst_tokens * (1.0 - self.burst_share) / self.burst_share
        inside = np.zeros(tokens, dtype=np.bool_)
        hard = bool(rng.random() < self.burst_share)
        place = 0
        while place < tokens:
            mean = self.burst_tokens if hard else min(max(1.0, calm_tokens), LONGEST_STRETCH)
            stretch = int(rng.geometric(1.0 / mean))
            inside[place : place + stretch] = hard
            place, hard = place + stretch, not hard
        return inside

    def describe(self) -> str:
        """The process in words."""
        parts = [f"draft acceptance {self.level:g} on average"]
        parts.extend(f"{item.level:g} from request {item.from_request}" for item in self.shifts)
        parts.append(f"sd {self.spread:g} between requests" if self.spread else "alike in all")
        if self.drift:
            parts.append(f"wandering by {self.drift:g} in log-odds over {self.drift_tokens} tokens")
        if self.burst_share:
            parts.append(
                f"times {self.burst_factor:g} in stretches of {self.burst_tokens} tokens that "
                f"make up {self.burst_share:.3g} of the output"
            )
        return ", ".join(parts)


def _beta(rng: np.random.Generator, mean: float, spread: float) -> float:
    mean = min(max(mean, EDGE), 1.0 - EDGE)
    uniform = rng.random(2)  # drawn in any case, so that the spread leaves other draws alone
    # No spread of a beta distribution reaches that of a coin.
    variance = min(spread**2, 0.9 * mean * (1.0 - mean))
    if variance < LEAST_VARIANCE:  # a beta so narrow cannot be drawn from
        return mean
    strength = mean * (1.0 - mean) / variance - 1.0
    shape = np.random.Generator(np.random.PCG64(int(uniform[0] * (1 << 53))))
    drawn = shape.beta(mean * strength, (1.0 - mean) * strength)
    return float(min(max(drawn, EDGE), 1.0 - EDGE))
