"""``governor check equality``: the same requests through stock and governed engines."""

from __future__ import annotations

import time
import urllib.request
from typing import Any

from rich.progress import Progress

from governor_bench.engine_metrics import read_counters
from governor_bench.equality.check import Mismatch, compare, run
from governor_bench.equality.workload import mixed_requests
from governor_bench.processes import workspace
from governor_bench.servers import Controller, CpuEngine
from governor_bench.tiny_models import tiny_models

PUBLISHED_AFTER_S = 1.2
"""The engine brings its counters up to date twice a second, also when it is idle."""

STRICT = {"SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY": "1"}
"""SGLang checks its own memory accounting after every step, and fails on a difference."""


def check(
    *,
    requests: int,
    seed: int,
    loops: list[str],
    policies: list[str],
    arguments: tuple[str, ...],
    progress: Progress,
) -> dict[str, Any]:
    """Compare every token.

    Args:
        requests: how many mixed requests each run sends.
        loops: ``normal``, ``overlap``.
        policies: controller policies to run the requests under, one after another.
        arguments: further arguments for all engines, such as ``--tp 2``.

    Returns:
        ``requests`` (compared, over all runs), ``mismatched``, ``parked_row_steps``, ``runs``.
    """
    model = tiny_models().target
    task = progress.add_task("", total=len(loops) * (1 + len(policies)))
    runs: list[dict[str, Any]] = []
    for loop in loops:
        specs = mixed_requests(requests, seed, penalties=loop == "normal")
        with workspace() as folder:
            progress.update(task, description=f"{loop} loop: stock")
            options: dict[str, Any] = {"overlap": loop == "overlap", "environment": STRICT}
            with CpuEngine(folder, model, arguments=arguments, **options) as engine:
                engine.wait_ready()
                stock = run(engine.url, specs)
            progress.advance(task)
            with Controller(folder) as controller:
                controller.wait_ready()
                with CpuEngine(
                    folder,
                    model,
                    governor={"ENDPOINT": controller.endpoint},
                    arguments=("--enable-metrics", *arguments),
                    **options,
                ) as engine:
                    engine.wait_ready()
                    for policy in policies:
                        progress.update(task, description=f"{loop} loop: {policy}")
                        controller.set_policy(policy)
                        _flush(engine.url)
                        before = read_counters(engine.url)
                        found = compare(stock, run(engine.url, specs))
                        time.sleep(PUBLISHED_AFTER_S)
                        counted = read_counters(engine.url).since(before)
                        runs.append(_row(loop, policy, len(specs), found, counted.parked_row_steps))
                        progress.advance(task)
    return {
        "requests": sum(row["requests"] for row in runs),
        "mismatched": sum(row["mismatched"] for row in runs),
        "parked_row_steps": sum(row["parked_row_steps"] for row in runs),
        "runs": runs,
    }


def _row(
    loop: str, policy: str, requests: int, found: list[Mismatch], parked: int
) -> dict[str, Any]:
    return {
        "loop": loop,
        "policy": policy,
        "requests": requests,
        "mismatched": len({item.index for item in found}),
        "parked_row_steps": parked,
        "first_mismatch": f"{found[0]}" if found else "",
    }


def _flush(url: str) -> None:
    """Empty the prefix cache, so that every run prefills alike."""
    request = urllib.request.Request(f"{url}/flush_cache", method="POST")  # noqa: S310
    with urllib.request.urlopen(request, timeout=60):  # noqa: S310
        pass
