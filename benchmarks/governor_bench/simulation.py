"""``governor simulate``: one workload through simulated engines, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import Any

import msgspec
from governor_profiles import StepProfile
from governor_sim.simulate import SimConfig, SimResult, simulate
from governor_workloads.report import summarise
from governor_workloads.spec import Workload
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from controller_service.policies.base import Policy
from controller_service.predictors.registry import make_predictor

STOCK = "stock"
"""Instead of a policy: the engine is not governed."""

Cell = dict[str, Any]
Show = Callable[[Any], str]


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.1f}"


def _whole(number: float) -> str:
    return f"{number:,.0f}"


LINES: tuple[tuple[str, str, Show], ...] = (
    ("goodput, tok/s", "goodput_tok_s", _whole),
    ("attainment", "attainment", "{:.1%}".format),
    ("throughput, tok/s", "throughput_tok_s", _whole),
    ("TPOT p50, ms", "tpot_p50_s", _milliseconds),
    ("TPOT p99, ms", "tpot_p99_s", _milliseconds),
    ("TTFT p50, s", "ttft_p50_s", "{:.3f}".format),
    ("TTFT p99, s", "ttft_p99_s", "{:.3f}".format),
    ("victim TPOT p50, ms", "victim_tpot_p50_s", _milliseconds),
    ("victim TPOT p95, ms", "victim_tpot_p95_s", _milliseconds),
    ("steps", "steps", _whole),
    ("times real time", "times_real_time", _whole),
)


def run_cell(
    workload: Workload,
    profile: StepProfile,
    policy: Policy | None,
    predictor: str,
    config: SimConfig,
    *,
    seconds: float | None,
    seed: int,
    progress: Progress,
) -> Cell:
    """Simulate one policy on one profile.

    Args:
        policy: None for a stock engine.
        predictor: name of the controller's predictor; a fresh one is made.
        seconds: virtual seconds after which the run is cut off; None: all requests are served.

    Returns:
        The fields of ``LoadReport`` and what the run itself was like.

    Raises:
        ValueError: a request does not fit into KV memory.
        PolicyFailed: the policy raised.
    """
    label = STOCK if policy is None else policy.label
    until_s = seconds or (workload.requests[-1].arrival_s or None)
    task = progress.add_task(f"{profile.name} {label}", total=until_s)
    result = simulate(
        workload,
        profile,
        policy,
        None if policy is None else make_predictor(predictor),
        config,
        seconds=float("inf") if seconds is None else seconds,
        seed=seed,
        progress=lambda now_s: progress.update(task, completed=now_s),
    )
    progress.update(task, total=result.virtual_s, completed=result.virtual_s)
    report = summarise(result.served, None if seconds is None else (0.0, seconds))
    return {
        "profile": profile.name,
        "policy": label,
        **msgspec.to_builtins(report),
        **_of_the_run(result),
    }


def table_of(cells: list[Cell]) -> str:
    """One column per cell, headed by its policy, and by its profile where there are several."""
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    several = len({cell["profile"] for cell in cells}) > 1
    for cell in cells:
        name = f"{cell['profile']}\n{cell['policy']}" if several else cell["policy"]
        table.add_column(name, justify="right", no_wrap=True)
    for title, key, show in LINES:
        table.add_row(title, *(show(cell[key]) for cell in cells))
    text = StringIO()
    Console(file=text, width=30 + 30 * len(cells)).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def _of_the_run(result: SimResult) -> Cell:
    steps, tally = result.steps, result.tally
    outcomes = dict(tally.outcomes) if tally else {}
    return {
        "steps": len(steps),
        "mean_rows": float(steps.rows.mean()) if len(steps) else 0.0,
        "outcomes": outcomes,
        "parked_row_steps": tally.parked_row_steps if tally else 0,
        "retractions": result.retractions,
        "preemptions": result.preemptions,
        "host_limited_s": result.host_limited_s,
        "virtual_s": result.virtual_s,
        "wall_s_of_simulator": result.wall_s,
        "times_real_time": result.times_real_time,
    }
