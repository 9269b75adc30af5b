"""When requests are sent: open loops (Poisson, bursty, shifting) and the closed loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from governor_workloads.errors import WorkloadError

MAX_REQUESTS = 1_000_000

Rate = Annotated[float, Meta(gt=0, le=1e6)]
Floats = NDArray[np.float64]


class Poisson(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="poisson"
):
    """Independent users: exponential times between arrivals."""

    rate_per_s: Rate

    def gaps(self, rng: np.random.Generator, count: int) -> Floats:
        """Times between arrivals, in units of their mean."""
        return rng.standard_exponential(count)

    def describe(self) -> str:
        return f"Poisson arrivals, {self.rate_per_s:g} requests/s"


class Bursty(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="bursty"
):
    """Gamma-distributed times between arrivals.

    Their coefficient of variation says how bursty: 1 is Poisson, above 1 requests come in clusters
    with pauses between them, below 1 they are spaced evenly.
    """

    rate_per_s: Rate
    cv: Annotated[float, Meta(ge=0.05, le=20)]

    def gaps(self, rng: np.random.Generator, count: int) -> Floats:
        """Times between arrivals, in units of their mean."""
        shape = 1 / self.cv**2
        return rng.standard_gamma(shape, count) / shape

    def describe(self) -> str:
        return f"gamma times between arrivals, {self.rate_per_s:g} requests/s, cv {self.cv:g}"


class Closed(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="closed"
):
    """A fixed number of users, each with one request in flight or thinking about the next."""

    users: Annotated[int, Meta(ge=1, le=65_536)]
    think_mean_s: Annotated[float, Meta(ge=0, le=1e6)] = 0.0
    """Exponential."""

    def thinks_s(self, rng: np.random.Generator, count: int) -> Floats:
        return self.think_mean_s * rng.standard_exponential(count)

    def describe(self) -> str:
        think = f"exponential, mean {self.think_mean_s:g} s" if self.think_mean_s else "none"
        return f"closed loop of {self.users} users, think time {think}"


class Phase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From ``from_s`` on, an open loop's rate is its base rate times ``factor``."""

    from_s: Annotated[float, Meta(ge=0, le=1e7)]
    factor: Annotated[float, Meta(gt=0, le=1e3)]


def arrival_times_s(
    arrivals: Poisson | Bursty,
    phases: Sequence[Phase],
    rng: np.random.Generator,
    *,
    requests: int | None,
    duration_s: float | None,
) -> Floats:
    """Ascending arrival times of ``requests`` requests, or of all before ``duration_s``.

    The gaps are drawn at rate 1 and stretched by the integral of the rate, so that a phase changes
    when requests arrive and neither their order nor any other draw.

    Raises:
        WorkloadError: more than a million requests.
    """
    starts_s, rates = _rates(arrivals.rate_per_s, phases)
    passed = np.concatenate(([0.0], np.cumsum(np.diff(starts_s) * rates[:-1])))
    if requests is not None:
        load = np.cumsum(arrivals.gaps(rng, requests))
    else:
        load = _load_until(arrivals, rng, starts_s, rates, passed, duration_s or 0.0)
    segment = passed.searchsorted(load, side="right") - 1
    times: Floats = starts_s[segment] + (load - passed[segment]) / rates[segment]
    return times


def _rates(base_per_s: float, phases: Sequence[Phase]) -> tuple[Floats, Floats]:
    """Start and rate of every stretch of constant rate; the first starts at 0."""
    stretches = [(phase.from_s, base_per_s * phase.factor) for phase in phases]
    if not stretches or stretches[0][0] > 0:
        stretches.insert(0, (0.0, base_per_s))
    starts, rates = zip(*stretches, strict=True)
    return np.array(starts, dtype=np.float64), np.array(rates, dtype=np.float64)


def _load_until(
    arrivals: Poisson | Bursty,
    rng: np.random.Generator,
    starts_s: Floats,
    rates: Floats,
    passed: Floats,
    duration_s: float,
) -> Floats:
    """Arrivals at rate 1 before the point that ``duration_s`` maps to."""
    last = int(starts_s.searchsorted(duration_s, side="right")) - 1
    end = float(passed[last] + (duration_s - starts_s[last]) * rates[last])
    if end > MAX_REQUESTS:
        raise WorkloadError(
            f"duration_s: {duration_s:g} s at these rates make about {end:.0f} requests, more than "
            f"{MAX_REQUESTS}; shorten it or lower rate_per_s"
        )
    load = np.zeros(0)
    while not load.size or load[-1] < end:
        reached = load[-1] if load.size else 0.0
        load = np.concatenate((load, reached + np.cumsum(arrivals.gaps(rng, max(1024, load.size)))))
    before: Floats = load[load < end]
    return before
