"""What a controller has recorded of a run on a real engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from governor_protos.messages import Outcome, StepKind

from governor_bench.eval.speculation.setting import StepFigures
from governor_bench.servers import Controller

ENOUGH_STEPS = 4096
"""The most that a controller remembers."""

Records = Sequence[dict[str, Any]]


def decode_steps(controller: Controller, since: int) -> Records:
    """Its newest decode steps, as far as they are newer than step ``since``."""
    return of_decode([item for item in controller.steps(ENOUGH_STEPS) if item["step"] > since])


def of_decode(records: Records) -> Records:
    """Those of steps that decode."""
    return [item for item in records if item["kind"] == StepKind.DECODE]


def step_figures(records: Records, scale: float, *, times_real_time: float) -> StepFigures:
    """Over all decode steps of a run.

    Args:
        scale: by which the engine's durations are stretched.
    """

    def total(field: str) -> float:
        return float(sum(item[field] for item in records))

    steps, rows = max(1, len(records)), max(1.0, total("rows"))
    return StepFigures(
        rows=rows / steps,
        draft_tokens_per_row=total("draft_tokens") / rows,
        accepted_per_row=total("accepted_tokens") / rows,
        length=total("draft_length") / steps,
        step_ms=1e3 * total("latency_s") / steps / scale,
        times_real_time=round(times_real_time, 3),
    )


def late_share(records: Records) -> float:
    """Share of the steps that ran without a fresh decision."""
    late = sum(int(item["outcome"] != Outcome.APPLIED) for item in records)
    return late / max(1, len(records))
