"""The workloads of the evaluations. Each is written out in the report.

TAPER's comparison has 50-80 % decomposable requests of at most 1200 new tokens; widths and lengths
are not published. Here 65 % branch 8, 16 or 24 ways with at most 50 tokens a branch.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
from governor_workloads.generator import generate
from governor_workloads.mix import Mix
from governor_workloads.spec import Workload

REQUESTS_PER_USER = 120
RAMP_S = 10.0
"""Closed loops: users come one after the other over this time. All at once, they would prefill at
once, and those first served would wait for the rest."""

_DEMANDS: dict[str, Any] = {
    "prompt_tokens": {"kind": "uniform", "min": 100, "max": 300},
    "output_tokens": {"kind": "lognormal", "mean": 700, "cv": 0.5, "min": 16, "max": 1200},
    "branching_share": 0.65,
    "widths": [[8, 1], [16, 1], [24, 1]],
    "branch_tokens": {"kind": "lognormal", "mean": 35, "cv": 0.4, "min": 8, "max": 50},
}

STEADY = "steady"
"""Closed loop, one target for all."""
TARGETS = "targets"
"""Closed loop, targets of half, once and twice the nominal one."""
SHIFT = "shift"
"""Open loop whose rate shifts between 1.7 and 0.3 times the nominal one."""
SHIFT_EVERY_S = 40.0
"""A whole cycle is twice that; judge whole cycles that end after a low."""

NAMES = (STEADY, TARGETS, SHIFT)


def workload_of(name: str, load: float, slo_ms: float, seed: int, seconds: float) -> Workload:
    """
    Args:
        load: users (``steady``, ``targets``) or requests per second (``shift``).
        seconds: length of the run.

    Raises:
        ValueError: no such workload.
    """
    slo_s = slo_ms / 1e3
    one_target = [{"tpot_slo_s": slo_s}]
    if name == STEADY:
        return _ramped(generate(Mix.of(_closed(load) | {"targets": one_target}), seed))
    if name == TARGETS:
        targets = [
            {"weight": 1, "tpot_slo_s": slo_s / 2},
            {"weight": 2, "tpot_slo_s": slo_s},
            {"weight": 1, "tpot_slo_s": 2 * slo_s},
        ]
        return _ramped(generate(Mix.of(_closed(load) | {"targets": targets}), seed))
    if name == SHIFT:
        phases = [
            {"from_s": number * SHIFT_EVERY_S, "factor": 0.3 if number % 2 else 1.7}
            for number in range(math.ceil(seconds / SHIFT_EVERY_S))
        ]
        mix = {
            **_DEMANDS,
            "arrivals": {"kind": "poisson", "rate_per_s": load},
            "phases": phases,
            "duration_s": seconds,
            "targets": one_target,
        }
        return generate(Mix.of(mix), seed)
    raise ValueError(f"no workload {name!r}; choose one of {', '.join(NAMES)}")


def _ramped(workload: Workload) -> Workload:
    first = [
        msgspec.structs.replace(request, think_s=request.index * RAMP_S / workload.users)
        for request in workload.requests[: workload.users]
    ]
    return msgspec.structs.replace(
        workload,
        description=f"{workload.description}; users come one after the other over {RAMP_S:g} s",
        requests=(*first, *workload.requests[workload.users :]),
    )


def _closed(users: float) -> dict[str, Any]:
    return {
        **_DEMANDS,
        "arrivals": {"kind": "closed", "users": int(users)},
        "requests": int(users) * REQUESTS_PER_USER,
    }
