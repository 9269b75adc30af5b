"""The traffic that budgets are compared under. All of it is an open loop, and each request has
targets of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from governor_profiles import StepProfile
from governor_workloads.azure import load_azure
from governor_workloads.generator import generate
from governor_workloads.mix import Mix
from governor_workloads.spec import Workload, WorkRequest
from governor_workloads.traces import TraceOptions

TPOT_SLO_S = 0.1
LEAST_TTFT_SLO_S = 1.0
TIMES_ALONE = 3.0
"""A prompt's target for its first token is so many times what it takes alone on the device with
nothing in the prefix cache, and never below the least."""
LONG_TTFT_SLO_S = 30.0
"""Of the long prompts in bursts: one burst takes 12 s alone."""

TRACES = "GOVERNOR_TRACES"
"""Environment variable: a folder with the CSV files of the Azure LLM inference trace 2023."""
TRACE_START_S, TRACE_STRETCH_S = 900.0, 400.0

BURST, BURST_EVERY_S, BURST_GAP_S = 4, 60.0, 0.05
LONG_PROMPT_TOKENS, LONG_OUTPUT_TOKENS = 24_000, 2_000

PREFIXES, PREFIX_BLOCKS, BLOCK_TOKENS = 12, 6, 512


class Shape(msgspec.Struct, frozen=True):
    """A kind of traffic."""

    name: str
    note: str
    saturation_per_s: float
    """Requests per second that an engine under SGLang's default just keeps up with on
    ``qwen3-32b-h200``: as many as it serves per second of a backlog, or, beside bursts, where the
    queue begins to outlast them."""
    make: Callable[[float, int, float], Workload]
    """From requests per second, seed and seconds, without targets for the first token."""
    least_judged_s: float = 60.0
    """A shorter window would see too little of it."""


def workload_of(
    shape: str,
    rate_per_s: float,
    seed: int,
    seconds: float,
    profile: StepProfile,
    target_factor: float = 1.0,
) -> Workload:
    """``seconds`` of the traffic that is called ``shape``.

    Args:
        profile: of the device that the targets are made for.
        target_factor: multiplies every TTFT target.

    Raises:
        ValueError: there is no such shape.
        WorkloadError: a trace is missing or unusable.
    """
    workload = shape_of(shape).make(rate_per_s, seed, seconds)

    def targeted(request: WorkRequest) -> WorkRequest:
        alone_s = profile.step_s(1, request.prompt_tokens, request.prompt_tokens)
        ttft_slo_s = max(LEAST_TTFT_SLO_S, TIMES_ALONE * alone_s)
        if is_long(request.prompt_tokens):
            ttft_slo_s = LONG_TTFT_SLO_S
        return msgspec.structs.replace(
            request, ttft_slo_s=target_factor * ttft_slo_s, tpot_slo_s=TPOT_SLO_S
        )

    return msgspec.structs.replace(
        workload,
        requests=tuple(targeted(request) for request in workload.requests),
        description=(
            f"{workload.description}; targets of every request: TPOT {1e3 * TPOT_SLO_S:g} ms, TTFT "
            f"{TIMES_ALONE:g} times what its prompt takes alone and at least "
            f"{LEAST_TTFT_SLO_S:g} s" + (f", times {target_factor:g}" if target_factor != 1 else "")
        ),
    )


def is_long(prompt_tokens: int) -> bool:
    """Whether a prompt is one of those that come in bursts."""
    return prompt_tokens >= LONG_PROMPT_TOKENS


def shape_of(name: str) -> Shape:
    """
    Raises:
        ValueError: there is no such shape; names those that there are.
    """
    known = {shape.name: shape for shape in (*SYNTHETIC, *RECORDED)}
    if name not in known:
        raise ValueError(f"no shape {name!r}; choose one of {', '.join(known)}")
    return known[name]


def shapes() -> tuple[Shape, ...]:
    """Everything that can be run here: the traces only where they are."""
    return SYNTHETIC + (RECORDED if trace_folder() is not None else ())


def trace_folder() -> Path | None:
    """Where the Azure traces are; None: they are not here."""
    folder = os.environ.get(TRACES)
    return Path(folder) if folder else None


def _mix(
    rate_per_s: float, seconds: float, prompts: dict[str, Any], outputs: dict[str, Any], cv: float
) -> Mix:
    arrivals = (
        {"kind": "poisson", "rate_per_s": rate_per_s}
        if cv == 1.0
        else {"kind": "bursty", "rate_per_s": rate_per_s, "cv": cv}
    )
    return Mix.of(
        {
            "arrivals": arrivals,
            "duration_s": seconds,
            "prompt_tokens": {"kind": "lognormal", **prompts},
            "output_tokens": {"kind": "lognormal", **outputs},
        }
    )


def _chat(rate_per_s: float, seed: int, seconds: float) -> Workload:
    prompts = {"mean": 1155, "cv": 0.96, "min": 8, "max": 14050}
    outputs = {"mean": 211, "cv": 0.77, "min": 7, "max": 1000}
    return generate(_mix(rate_per_s, seconds, prompts, outputs, 1.0), seed)


def _code(rate_per_s: float, seed: int, seconds: float) -> Workload:
    prompts = {"mean": 2048, "cv": 0.96, "min": 8, "max": 7437}
    outputs = {"mean": 28, "cv": 2.15, "min": 6, "max": 1899}
    return generate(_mix(rate_per_s, seconds, prompts, outputs, 1.0), seed)


def _short(rate_per_s: float, seed: int, seconds: float) -> Workload:
    prompts = {"mean": 300, "cv": 0.8, "min": 16, "max": 2000}
    outputs = {"mean": 150, "cv": 0.7, "min": 8, "max": 600}
    return generate(_mix(rate_per_s, seconds, prompts, outputs, 1.0), seed)


def _long_bursts(rate_per_s: float, seed: int, seconds: float) -> Workload:
    """Bursts come at regular times, whose phase the seed draws: each run holds as many."""
    chats = _short(rate_per_s, seed, seconds)
    latest_s = min(BURST_EVERY_S, seconds / 3.0)  # a short run holds one as well
    phase_s = float(np.random.default_rng([seed, 1]).uniform(0.0, latest_s))
    starts_s = np.arange(phase_s, seconds, BURST_EVERY_S)
    long = [
        WorkRequest(
            index=0,
            arrival_s=float(start_s) + number * BURST_GAP_S,
            prompt_tokens=LONG_PROMPT_TOKENS,
            output_tokens=LONG_OUTPUT_TOKENS,
        )
        for start_s in starts_s
        for number in range(BURST)
    ]
    return msgspec.structs.replace(
        chats,
        requests=_in_order([*chats.requests, *long]),
        description=(
            f"{chats.description}; beside them, every {BURST_EVERY_S:g} s a burst of {BURST} "
            f"requests of {LONG_PROMPT_TOKENS} prompt and {LONG_OUTPUT_TOKENS} output tokens, "
            f"{1e3 * BURST_GAP_S:g} ms apart, whose TTFT target is {LONG_TTFT_SLO_S:g} s"
        ),
    )


def _prefix(rate_per_s: float, seed: int, seconds: float) -> Workload:
    """Each request goes on from one of some system prompts, chosen evenly."""
    own = _short(rate_per_s, seed, seconds)
    chosen = np.random.default_rng([seed, 2]).integers(PREFIXES, size=len(own.requests)).tolist()
    requests = tuple(
        msgspec.structs.replace(
            request,
            prompt_tokens=PREFIX_BLOCKS * BLOCK_TOKENS + request.prompt_tokens,
            prefix_blocks=tuple(range(which * PREFIX_BLOCKS, (which + 1) * PREFIX_BLOCKS)),
        )
        for request, which in zip(own.requests, chosen, strict=True)
    )
    return msgspec.structs.replace(
        own,
        requests=requests,
        prefix_block_tokens=BLOCK_TOKENS,
        description=(
            f"{own.description}; before each prompt, one of {PREFIXES} system prompts of "
            f"{PREFIX_BLOCKS * BLOCK_TOKENS} tokens"
        ),
    )


def _recorded(part: str) -> Callable[[float, int, float], Workload]:
    """As many requests of the trace as make the rate, sped up or slowed down to it; each seed has
    another stretch."""

    def make(rate_per_s: float, seed: int, seconds: float) -> Workload:
        folder = trace_folder()
        if folder is None:
            raise ValueError(f"{TRACES}: not set; name the folder with the Azure trace's CSV files")
        path = folder / f"AzureLLMInferenceTrace_{part}.csv"
        stretch = TraceOptions(
            start_s=TRACE_START_S + TRACE_STRETCH_S * (seed % 4),
            max_requests=max(2, round(rate_per_s * seconds)),
        )
        span_s = load_azure(path, stretch, seed).requests[-1].arrival_s
        return load_azure(
            path, msgspec.structs.replace(stretch, rate_factor=span_s / seconds), seed
        )

    return make


def _in_order(requests: Iterable[WorkRequest]) -> tuple[WorkRequest, ...]:
    ordered = sorted(requests, key=lambda request: request.arrival_s)
    return tuple(
        msgspec.structs.replace(request, index=index) for index, request in enumerate(ordered)
    )


CHAT = Shape("chat", "lengths as in the Azure chat trace, Poisson", 5.0, _chat)
CODE = Shape("code", "lengths as in the Azure code trace, Poisson", 3.8, _code)
LONG_BURSTS = Shape(
    "long_bursts", "short chats, and bursts of long prompts", 6.5, _long_bursts, 240.0
)
PREFIX = Shape("prefix", "long system prompts that many share", 12.0, _prefix)
SYNTHETIC = (CHAT, CODE, LONG_BURSTS, PREFIX)
RECORDED = (
    Shape("azure_chat", "the Azure chat trace", 5.0, _recorded("conv")),
    Shape("azure_code", "the Azure code trace", 3.8, _recorded("code")),
)
