"""``governor simulate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from governor_profiles import preferred_profile

from governor_bench.commands.output import finish, json_option, progress_bar
from governor_bench.commands.sources import Source, source_options, workload_of
from governor_bench.envelope import Stopwatch, envelope

if TYPE_CHECKING:
    from governor_profiles import Shift, StepProfile

    from controller_service.policies.base import Policy


@click.command("simulate")
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    default=[preferred_profile("qwen3-32b-h200")],
    show_default=True,
    help="Name of a profile, or its JSON file; repeatable.",
)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    default=["stock", "taper_plus"],
    show_default=True,
    help="As for the controller, or 'stock' for an ungoverned engine; repeatable.",
)
@click.option("--predictor", default="corrected-linear", show_default=True)
@source_options
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    help="Cut off after this much virtual time; without, all requests are served.",
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
@click.option("--max-running-requests", type=click.IntRange(min=1), default=512, show_default=True)
@click.option(
    "--chunked-prefill-size",
    type=click.IntRange(min=1),
    default=8192,
    show_default=True,
    help="Prompt tokens that a step prefills at most.",
)
@click.option(
    "--mixed-chunk",
    is_flag=True,
    help="As with --enable-mixed-chunk: running rows decode in a step that prefills.",
)
@click.option("--kv-tokens", type=click.IntRange(min=1), help="Instead of the profile's.")
@click.option("--normal-loop", is_flag=True, help="As with --disable-overlap-schedule.")
@click.option(
    "--noise",
    type=click.FloatRange(0, 0.2),
    default=0.0,
    show_default=True,
    help="Relative standard deviation of each step's duration.",
)
@click.option(
    "--shift",
    metavar="STEP:FACTOR",
    help="From that step on, every step takes FACTOR times as long.",
)
@json_option
def simulate(
    profiles: tuple[str, ...],
    policies: tuple[str, ...],
    predictor: str,
    mix: Path | None,
    azure: Path | None,
    mooncake: Path | None,
    trace_options: Path | None,
    seconds: float | None,
    seed: int,
    max_running_requests: int,
    chunked_prefill_size: int,
    mixed_chunk: bool,
    kv_tokens: int | None,
    normal_loop: bool,
    noise: float,
    shift: str | None,
    json_path: str,
) -> None:
    """Compare policies in the discrete-event simulator."""
    from governor_sim.batching import EngineLimits
    from governor_sim.simulate import SimConfig

    from controller_service.policies.base import PolicyFailed
    from controller_service.predictors.registry import check_predictor_name
    from governor_bench.simulation import run_cell, table_of

    try:
        check_predictor_name(predictor)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--predictor") from None
    engines = [_profile(name) for name in profiles]
    rules = [_policy(text) for text in policies]
    source = Source(mix, azure, mooncake, trace_options)
    workload = workload_of(source, seed)
    config = SimConfig(
        limits=EngineLimits(
            max_running_requests=max_running_requests,
            chunked_prefill_size=chunked_prefill_size,
            mixed_chunk=mixed_chunk,
        ),
        overlap=not normal_loop,
        kv_tokens=kv_tokens,
        noise=noise,
        shift=None if shift is None else _shift(shift),
    )
    stopwatch = Stopwatch()
    cells = []
    try:
        with progress_bar() as progress:
            for engine in engines:
                for rule in rules:
                    cell = run_cell(
                        workload,
                        engine,
                        rule,
                        predictor,
                        config,
                        seconds=seconds,
                        seed=seed,
                        progress=progress,
                    )
                    cells.append(cell)
    except PolicyFailed as error:
        raise click.ClickException(f"policy {error} failed: {error.__cause__}") from None
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    report = {
        "times_real_time": min(cell["times_real_time"] for cell in cells),
        "workload": workload.name,
        "description": workload.description,
        "cells": cells,
        **envelope(
            tier="S",
            seeds=[seed],
            arguments={
                "profiles": [engine.name for engine in engines],
                "policies": list(policies),
                "predictor": predictor,
                "source": source.name,
                "seconds": seconds,
                "max_running_requests": max_running_requests,
                "chunked_prefill_size": chunked_prefill_size,
                "mixed_chunk": mixed_chunk,
                "kv_tokens": kv_tokens,
                "overlap": not normal_loop,
                "noise": noise,
                "shift": shift,
            },
            stopwatch=stopwatch,
        ),
    }
    finish(report, json_path, f"{workload.description}\n\n{table_of(cells)}")


def _profile(name: str) -> StepProfile:
    from governor_profiles import ProfileError, load_profile

    try:
        return load_profile(name)
    except ProfileError as error:
        raise click.BadParameter(str(error), param_hint="--profile") from None


def _shift(text: str) -> Shift:
    from governor_profiles import Shift

    try:
        return Shift.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--shift") from None


def _policy(text: str) -> Policy | None:
    from controller_service.policies.registry import UnknownPolicy, parse_policy
    from governor_bench.simulation import STOCK

    if text == STOCK:
        return None
    try:
        return parse_policy(text)
    except UnknownPolicy as error:
        message = f"{error}; or {STOCK!r} for an ungoverned engine"
        raise click.BadParameter(message, param_hint="--policy") from None
