"""The traffic that orders of service are compared under: an open loop of requests of one kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from governor_workloads.generator import generate
from governor_workloads.mix import Mix
from governor_workloads.spec import Workload, WorkRequest

SPREAD, DRIFT = 0.15, 0.3
BURST_SHARE, BURST_TOKENS, BURST_FACTOR = 0.1, 16, 0.4
"""Of draft acceptance, as in the evaluation of speculation."""
HINT_SPREAD = 0.2
"""Standard deviation of the logarithm of what a hint is off by."""


class Task(msgspec.Struct, frozen=True):
    """What some of a shape's requests are about."""

    share: float
    """Of the requests."""
    prompts: dict[str, Any]
    outputs: dict[str, Any]
    """Lognormal lengths in tokens."""


class Shape(msgspec.Struct, frozen=True):
    """A kind of traffic."""

    name: str
    note: str
    tasks: tuple[Task, ...]
    """Drawn for each request on its own. Longer prompts ask for longer answers, which is all that
    tells them apart."""
    acceptance: float
    """Mean chance that a drafted token is right."""
    limit_tokens: int
    """What requests name as their limit where they do not know how much they will say."""
    saturation_per_s: dict[int, tuple[float, float]]
    """Requests per second that saturate an engine with so many places in its batch, where it drafts
    and where it does not: as many as end per second of a backlog, first come, first served, on
    ``qwen3-32b-h200`` (:mod:`..saturation`)."""
    warm_up_s: float
    judged_s: float
    goes_on_s: float
    drain_s: float
    """See :class:`..setting.Timing`. Longer where requests are."""


def workload_of(
    shape: Shape,
    rate_per_s: float,
    cv: float,
    seed: int,
    seconds: float,
    *,
    is_telling: bool = True,
    is_hinted: bool = False,
) -> Workload:
    """``seconds`` of ``shape``.

    Bursts make the number of requests that come in a time uncertain. Here it is not: arrivals are
    stretched so that each seed has as many, and the load is what it is called.

    Args:
        cv: coefficient of variation of the gaps between arrivals; 1: Poisson.
        is_telling: whether the length of a prompt tells anything of that of its answer. Otherwise
            requests swap their prompts.
        is_hinted: whether each request declares how much it will write, times a lognormal factor
            with a median of 1.
    """
    arrivals: dict[str, Any] = {"kind": "poisson", "rate_per_s": rate_per_s}
    if cv != 1.0:
        arrivals = {"kind": "bursty", "rate_per_s": rate_per_s, "cv": cv}
    count = max(2, round(rate_per_s * seconds))
    found = [
        generate(_mix(shape, task, {"arrivals": arrivals, "requests": count}), seed)
        for task in shape.tasks
    ]
    rng = np.random.default_rng([seed, 1])
    drawn = rng.choice(len(found), size=count, p=[task.share for task in shape.tasks]).tolist()
    chosen = [found[which].requests[index] for index, which in enumerate(drawn)]
    stretch = seconds / (chosen[-1].arrival_s or seconds)
    prompts = [request.prompt_tokens for request in chosen]
    if not is_telling:
        prompts = [prompts[index] for index in rng.permutation(count)]
    hints = _hints(chosen, seed) if is_hinted else [0] * count
    tasks = "; ".join(
        f"{task.share:g} of them: {one.description}"
        for task, one in zip(shape.tasks, found, strict=True)
    )
    return msgspec.structs.replace(
        found[0],
        requests=tuple(
            msgspec.structs.replace(
                request,
                prompt_tokens=tokens,
                arrival_s=stretch * request.arrival_s,
                expected_tokens=hint,
            )
            for request, tokens, hint in zip(chosen, prompts, hints, strict=True)
        ),
        description=tasks
        + ("" if is_telling else "; prompts shuffled among all")
        + (f"; each declares its output times exp(N(0, {HINT_SPREAD:g}))" if is_hinted else ""),
    )


def _hints(requests: Sequence[WorkRequest], seed: int) -> list[int]:
    """What each of ``requests`` declares, in tokens, at least 1."""
    normal = np.random.default_rng([seed, 2]).standard_normal(len(requests))
    written = np.array([request.output_tokens for request in requests])
    hints: list[int] = (
        np.maximum(1, np.rint(written * np.exp(HINT_SPREAD * normal))).astype(int).tolist()
    )
    return hints


def _mix(shape: Shape, task: Task, arrivals: dict[str, Any]) -> Mix:
    return Mix.of(
        {
            **arrivals,
            "prompt_tokens": {"kind": "lognormal", **task.prompts},
            "output_tokens": {"kind": "lognormal", **task.outputs},
            "acceptance": {
                "level": shape.acceptance,
                "spread": SPREAD,
                "drift": DRIFT,
                "burst_share": BURST_SHARE,
                "burst_tokens": BURST_TOKENS,
                "burst_factor": BURST_FACTOR,
            },
        }
    )


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
    tasks=(
        Task(
            0.6,
            {"mean": 50, "cv": 0.4, "min": 12, "max": 400},
            {"mean": 60, "cv": 0.8, "min": 4, "max": 1000},
        ),
        Task(
            0.3,
            {"mean": 150, "cv": 0.4, "min": 12, "max": 600},
            {"mean": 250, "cv": 0.8, "min": 8, "max": 2000},
        ),
        Task(
            0.1,
            {"mean": 400, "cv": 0.4, "min": 12, "max": 1200},
            {"mean": 900, "cv": 0.6, "min": 16, "max": 3000},
        ),
    ),
    acceptance=0.6,
    limit_tokens=4096,
    saturation_per_s={4: (1.88, 1.15), 16: (5.62, 3.94), 48: (10.3, 8.58)},
    warm_up_s=30.0,
    judged_s=240.0,
    goes_on_s=30.0,
    drain_s=90.0,
)
SYNTHESIS = Shape(
    name="synthesis",
    note="program synthesis: drafts are mostly right",
    tasks=(
        Task(
            0.75,
            {"mean": 120, "cv": 0.4, "min": 16, "max": 600},
            {"mean": 90, "cv": 0.6, "min": 8, "max": 600},
        ),
        Task(
            0.25,
            {"mean": 450, "cv": 0.4, "min": 32, "max": 1500},
            {"mean": 330, "cv": 0.6, "min": 16, "max": 1500},
        ),
    ),
    acceptance=0.85,
    limit_tokens=2048,
    saturation_per_s={16: (8.36, 4.8), 48: (13.7, 9.64)},
    warm_up_s=20.0,
    judged_s=180.0,
    goes_on_s=20.0,
    drain_s=70.0,
)
REASONING = Shape(
    name="reasoning",
    note="long reasoning",
    tasks=(
        Task(
            0.7,
            {"mean": 150, "cv": 0.6, "min": 16, "max": 800},
            {"mean": 1300, "cv": 0.7, "min": 100, "max": 8000},
        ),
        Task(
            0.3,
            {"mean": 650, "cv": 0.6, "min": 32, "max": 2500},
            {"mean": 5300, "cv": 0.6, "min": 200, "max": 16000},
        ),
    ),
    acceptance=0.7,
    limit_tokens=32768,
    saturation_per_s={16: (0.551, 0.312), 48: (1.04, 0.666)},
    warm_up_s=100.0,
    judged_s=700.0,
    goes_on_s=80.0,
    drain_s=350.0,
)
SHAPES = (INSTRUCTIONS, SYNTHESIS, REASONING)
