"""The engine that is measured, and how large each stage is there."""

from __future__ import annotations

from typing import Literal

import msgspec

Device = Literal["cuda", "cpu"]
ModelName = Literal["0.6b", "8b", "32b", "tiny"]

FORMAT = 1


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose figures a folder holds; its first file. Nothing is measured beside those of another."""

    format: int
    device: Device
    """``cpu``: a dry run on the reference CPU platform. Nothing of it says anything of a GPU."""
    model: ModelName
    """``tiny`` on a CPU alone."""
    engine_arguments: tuple[str, ...] = ()
    """Further arguments of every server."""


class Sizes(msgspec.Struct, frozen=True):
    """How large each stage is, and what it is expected to take. Times of a GPU are estimates until
    one has been seen."""

    start_s: float
    """Start of one server."""
    beside: bool
    """Whether two servers fit beside each other."""
    memory_share: float
    """Of the GPU, for weights and KV of one server alone."""
    memory_share_beside: float
    """... of one of two. Not used where two do not fit."""
    graph_rows: tuple[int, ...]
    slo_ms: float
    """TPOT target of the table of policies."""
    loads: tuple[float, float]
    """Users, low and high."""
    run_s: float
    """Length of one run of that table."""
    warm_up_s: float
    policies: tuple[str, ...]
    calibration_s: float
    """Time for the sweep over batch shapes."""
    calibration_rows: int | None
    """Most rows of that sweep; None: as many as the engine takes."""
    calibration_context: int | None
    draft_sweep_s: float
    draft_rows: int
    """Rows whose draft length is switched."""
    equality_requests: int
    rounds: int
    """Of the comparison of throughput."""
    round_requests: int
    concurrency: int
    output_tokens: int
    lateness_s: float
    parking_rows: tuple[int, ...]
    """Rows of a batch of which half are parked."""
    traced_steps: int
    traced_rows: int
    emulated_scale: float
    """Stretches the emulated engine's time so that this host keeps up."""


_POLICIES = ("off", "cap:2", "cap:5", "eager", "taper", "taper_plus")
_GRAPHS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)

_LARGE = Sizes(
    start_s=75.0,
    beside=False,
    memory_share=0.88,
    memory_share_beside=0.0,
    graph_rows=_GRAPHS,
    slo_ms=50.0,
    loads=(48.0, 112.0),
    run_s=40.0,
    warm_up_s=18.0,
    policies=_POLICIES,
    calibration_s=120.0,
    calibration_rows=None,
    calibration_context=None,
    draft_sweep_s=45.0,
    draft_rows=16,
    equality_requests=64,
    rounds=4,
    round_requests=128,
    concurrency=48,
    output_tokens=96,
    lateness_s=20.0,
    parking_rows=(8, 32, 128, 256),
    traced_steps=12,
    traced_rows=32,
    emulated_scale=3.0,
)

SIZES: dict[ModelName, Sizes] = {
    "32b": _LARGE,
    "8b": msgspec.structs.replace(
        _LARGE,
        start_s=45.0,
        beside=True,
        memory_share_beside=0.40,
        slo_ms=18.0,
        run_s=30.0,
        warm_up_s=14.0,
        calibration_s=90.0,
    ),
    "0.6b": msgspec.structs.replace(
        _LARGE,
        start_s=35.0,
        beside=True,
        memory_share_beside=0.30,
        slo_ms=8.0,
        run_s=25.0,
        warm_up_s=12.0,
        calibration_s=60.0,
    ),
    "tiny": msgspec.structs.replace(
        _LARGE,
        start_s=40.0,
        beside=True,
        graph_rows=(),
        slo_ms=60.0,
        loads=(2.0, 4.0),
        run_s=8.0,
        warm_up_s=2.0,
        policies=("off", "eager", "taper_plus"),
        calibration_s=15.0,
        calibration_rows=8,
        calibration_context=768,
        draft_sweep_s=12.0,
        draft_rows=2,
        equality_requests=16,
        rounds=2,
        round_requests=12,
        concurrency=6,
        output_tokens=24,
        lateness_s=6.0,
        parking_rows=(4, 8),
        traced_steps=4,
        traced_rows=4,
        emulated_scale=2.0,
    ),
}


class WrongTarget(ValueError):
    """A device and a model that do not go together."""


def target_of(device: Device, model: ModelName, engine_arguments: tuple[str, ...] = ()) -> Target:
    """
    Raises:
        WrongTarget: the CPU computes the tiny model alone, and a GPU is not for it.
    """
    if (device == "cpu") != (model == "tiny"):
        raise WrongTarget(
            f"--model {model} --device {device}: the CPU computes 'tiny' alone, for a dry run, and "
            "a GPU one of 0.6b, 8b, 32b"
        )
    return Target(FORMAT, device, model, engine_arguments)


def sizes_of(target: Target) -> Sizes:
    """How large each stage is on this target."""
    return SIZES[target.model]
