"""The engines that are attacked: real tokens on the CPU, and emulated steps; both loops."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from governor_bench.equality.check import run
from governor_bench.faults.target import STRICT, Target
from governor_bench.faults.workload import (
    Answers,
    emulated_answers,
    emulated_requests,
)
from governor_bench.load.spec import RequestSpec
from governor_bench.servers import CpuEngine, EmulatedEngine
from governor_bench.tiny_models import tiny_models

QUIET = ("--sleep-on-idle", "--enable-metrics")
IDENTITY = "attacked"
DRAFT_LENGTHS = (0, 1, 2, 4)
CHUNK_TOKENS = 128
PROFILE = {
    "name": "attacked",
    "source": "made up: steps that a busy machine of two cores can keep up with",
    "measured": False,
    "fixed_s": 0.006,
    "row_s": 1e-5,
    "context_token_s": 1e-7,
    "prefill_token_s": 1e-5,
    "draft_token_s": 1e-5,
    "draft_step_s": 2e-4,
    "kv_tokens": 4096,
}
"""Little memory, so that requests are retracted."""

CPU_POLICY = "random:0.5"
EMULATED_POLICY = "laps_sd+adaptive_chunk+taper_plus+turbospec"


def stock_answers(folder: Path, specs: list[RequestSpec]) -> Answers:
    """What stock SGLang says."""
    stock = CpuEngine(folder, tiny_models().target, arguments=QUIET, log_name="stock.log")
    with stock:
        stock.wait_ready()
        return run(stock.url, specs)


def cpu_target(
    folder: Path,
    specs: list[RequestSpec],
    expected: Answers,
    *,
    overlap: bool,
    governor: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Target:
    """An engine that is starting.

    Args:
        governor: its settings; by default it asks whoever listens in ``folder``.
    """
    folder.mkdir()
    engine = CpuEngine(
        folder,
        tiny_models().target,
        governor=governor or {"ENDPOINT": f"ipc://{folder}/controller.sock"},
        overlap=overlap,
        arguments=QUIET,
        environment={**STRICT, **(environment or {})},
    )
    name = f"CPU, {'overlap' if overlap else 'normal'} loop"
    return Target(name, engine, folder, specs, expected, CPU_POLICY)


def emulated_engine(folder: Path, log_name: str, *, overlap: bool) -> EmulatedEngine:
    """An engine that drafts on the emulated device and asks whoever listens in ``folder``."""
    profile = folder / "profile.json"
    profile.write_bytes(msgspec.json.encode(PROFILE))
    return EmulatedEngine(
        folder,
        profile,
        governor={
            "ENDPOINT": f"ipc://{folder}/controller.sock",
            "ENGINE_ID": IDENTITY,
            "EMULATED_DRAFT_LENGTHS": ",".join(map(str, DRAFT_LENGTHS)),
        },
        overlap=overlap,
        arguments=(
            *("--enable-metrics", "--chunked-prefill-size", str(CHUNK_TOKENS)),
            # Rows are let in that will not fit for long.
            *("--schedule-conservativeness", "0.1"),
            *("--speculative-algorithm", "EMULATED"),
            *("--speculative-num-steps", str(DRAFT_LENGTHS[-1])),
        ),
        environment=STRICT,
        log_name=log_name,
    )


def emulated_target(
    folder: Path, requests: int, seed: int, spread_s: float, *, overlap: bool
) -> Target:
    """An engine that is starting; its tokens are known without asking a stock one."""
    folder.mkdir(exist_ok=True)
    loop = "overlap" if overlap else "normal"
    engine = emulated_engine(folder, f"engine-{loop}.log", overlap=overlap)
    specs = emulated_requests(requests, seed, spread_s)
    return Target(
        f"emulated, {loop} loop", engine, folder, specs, emulated_answers(specs), EMULATED_POLICY
    )
