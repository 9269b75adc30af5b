"""A sweep of ``governor profile`` over an engine of ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from governor_bench.gpu.rig import Governed
from governor_bench.profiling.build import Built, Measured
from governor_bench.profiling.engine import ControllerApi, Engine
from governor_bench.profiling.finish import write_results
from governor_bench.profiling.plan import make_plan
from governor_bench.profiling.point import Point
from governor_bench.profiling.points_file import PointsFile
from governor_bench.profiling.prompts import Prompts
from governor_bench.profiling.run import Settings, Sweep

VOCABULARY = 2000


class Swept(NamedTuple):
    """What a sweep has left."""

    built: Built
    measured: list[Measured]
    profile: Path
    samples: Path


def sweep(
    governed: Governed,
    stem: Path,
    budget_s: float,
    *,
    rows: int | None,
    context: int | None,
    choose: Callable[[Sequence[Point]], Sequence[Point]],
    name: str,
    tell: Callable[[str], None],
) -> Swept:
    """Measure for ``budget_s``; points of an earlier run that was cut short count.

    Args:
        stem: of the files: ``.profile.json``, ``.samples.npz``, ``.points.jsonl``.
        rows, context: bounds of the sweep; None: the engine's own.
        choose: what of the plan is measured, and in which order.
        name: the profile's.

    Raises:
        ProfilingFailed: engine or controller do not answer.
        ProfileError: too little was measured for a profile; its samples are there all the same.
    """
    api = ControllerApi(governed.controller.url)
    facts = api.engine("")
    limits = facts.limits(rows, context)
    notes = PointsFile(stem.with_name(f"{stem.name}.points.jsonl"), facts.key, fresh=False)
    Sweep(
        Engine(governed.engine.url, facts.dp_rank),
        api,
        facts,
        limits,
        notes,
        Prompts(VOCABULARY, time.time_ns()),
        Settings(budget_s, share=1.0),
        lambda done, gone_s, text: tell(f"{done} points, {gone_s:.0f} of {budget_s:.0f} s: {text}"),
    ).run(choose(make_plan(limits)))
    profile = stem.with_name(f"{stem.name}.profile.json")
    samples = stem.with_name(f"{stem.name}.samples.npz")
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    built = write_results(profile, samples, facts, notes.measured, name, today)
    return Swept(built, notes.measured, profile, samples)
