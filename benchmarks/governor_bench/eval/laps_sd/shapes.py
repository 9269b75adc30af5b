"""The traffic that orders of service are compared under: an open loop of requests of one kind."""

from __future__ import annotations

from typing import Any

import msgspec
from governor_workloads.generator import generate
from governor_workloads.mix import Mix
from governor_workloads.spec import Workload

SPREAD, DRIFT = 0.15, 0.3
BURST_SHARE, BURST_TOKENS, BURST_FACTOR = 0.1, 16, 0.4
"""Of draft acceptance, as in the evaluation of speculation."""


class Shape(msgspec.Struct, frozen=True):
    """A kind of traffic."""

    name: str
    note: str
    prompts: dict[str, Any]
    outputs: dict[str, Any]
    """Lognormal lengths in tokens."""
    acceptance: float
    """Mean chance that a drafted token is right."""
    limit_tokens: int
    """What requests name as their limit where they do not know how much they will say."""
    drafting_per_s: float
    """Requests per second that saturate an engine that drafts: as many as end per second of a
    backlog, first come, first served, on ``qwen3-32b-h200`` with the limits of
    :mod:`..setting`."""
    plain_per_s: float
    """Likewise, of one that does not."""
    warm_up_s: float
    judged_s: float
    goes_on_s: float
    drain_s: float
    """See :class:`..setting.Timing`. Longer where requests are."""


def workload_of(
    shape: Shape, rate_per_s: float, cv: float, seed: int, seconds: float
) -> Workload:
    """``seconds`` of ``shape``.

    Args:
        cv: coefficient of variation of the gaps between arrivals; 1: Poisson.
    """
    arrivals: dict[str, Any] = {"kind": "poisson", "rate_per_s": rate_per_s}
    if cv != 1.0:
        arrivals = {"kind": "bursty", "rate_per_s": rate_per_s, "cv": cv}
    mix = {
        "arrivals": arrivals,
        "duration_s": seconds,
        "prompt_tokens": {"kind": "lognormal", **shape.prompts},
        "output_tokens": {"kind": "lognormal", **shape.outputs},
        "acceptance": {
            "level": shape.acceptance,
            "spread": SPREAD,
            "drift": DRIFT,
            "burst_share": BURST_SHARE,
            "burst_tokens": BURST_TOKENS,
            "burst_factor": BURST_FACTOR,
        },
    }
    return generate(Mix.of(mix), seed)


def shape_of(name: str) -> Shape:
    """
    Raises:
        ValueError: there is no such shape; names those that there are.
    """
    known = {shape.name: shape for shape in SHAPES}
    if name not in known:
        raise ValueError(f"no shape {name!r}; choose one of {', '.join(known)}")
    return known[name]


INSTRUCTIONS = Shape(
    name="instructions",
    note="short instructions, answers with a heavy tail",
    prompts={"mean": 100, "cv": 0.6, "min": 16, "max": 500},
    outputs={"mean": 200, "cv": 1.5, "min": 4, "max": 2000},
    acceptance=0.6,
    limit_tokens=4096,
    drafting_per_s=10.6,
    plain_per_s=8.9,
    warm_up_s=30.0,
    judged_s=100.0,
    goes_on_s=30.0,
    drain_s=40.0,
)
SYNTHESIS = Shape(
    name="synthesis",
    note="program synthesis: drafts are mostly right",
    prompts={"mean": 200, "cv": 0.6, "min": 16, "max": 1000},
    outputs={"mean": 150, "cv": 0.8, "min": 8, "max": 1000},
    acceptance=0.85,
    limit_tokens=2048,
    drafting_per_s=13.8,
    plain_per_s=9.7,
    warm_up_s=20.0,
    judged_s=80.0,
    goes_on_s=20.0,
    drain_s=30.0,
)
REASONING = Shape(
    name="reasoning",
    note="long reasoning",
    prompts={"mean": 300, "cv": 0.8, "min": 16, "max": 2000},
    outputs={"mean": 2500, "cv": 1.0, "min": 100, "max": 12000},
    acceptance=0.7,
    limit_tokens=16384,
    drafting_per_s=1.15,
    plain_per_s=0.75,
    warm_up_s=150.0,
    judged_s=400.0,
    goes_on_s=150.0,
    drain_s=250.0,
)
SHAPES = (INSTRUCTIONS, SYNTHESIS, REASONING)
