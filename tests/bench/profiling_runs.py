"""What tests of ``governor profile`` share: a made-up truth, and runs against it."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result
from governor_bench.commands.profile import profile
from governor_bench.profiling.engine import ControllerApi, Engine
from governor_bench.profiling.plan import make_plan
from governor_bench.profiling.points_file import PointsFile
from governor_bench.profiling.prompts import Prompts
from governor_bench.profiling.run import Outcome, Settings, Sweep
from governor_profiles import Bends, StepProfile
from profiled_engine import ProfiledEngine

TRUTH = StepProfile(
    name="paper",
    source="made up for this test",
    measured=False,
    fixed_s=0.01,
    row_s=2e-4,
    context_token_s=1e-6,
    prefill_token_s=1e-4,
    draft_token_s=0.0,
    kv_tokens=8192,
    bends=Bends(graph_rows=(1, 2, 4, 8, 16), tile_rows=8, tile_s=4e-3),
)


def sweep(
    engine: ProfiledEngine,
    folder: Path,
    *,
    points: int = 4,
    budget_s: float = 60.0,
    draft_points_only: bool = False,
) -> Outcome:
    api = ControllerApi(engine.url)
    facts = api.engine("")
    limits = facts.limits(None, None)
    plan = make_plan(limits)[:points]
    if draft_points_only:
        plan = [point for point in make_plan(limits) if point.kind == "draft"][:1]
    return Sweep(
        Engine(engine.url, 0),
        api,
        facts,
        limits,
        PointsFile(folder / "points.jsonl", facts.key, fresh=False),
        Prompts(2000, 1),
        Settings(budget_s, share=1.0),
        lambda done, gone_s, text: None,
    ).run(plan)


def command(engine: ProfiledEngine, output: Path, *more: str) -> list[str]:
    return ["--url", engine.url, "--controller", engine.url, "-o", str(output), *more]


def run(engine: ProfiledEngine, output: Path, *more: str) -> Result:
    arguments = command(engine, output, "--budget", "10s", "--share", "1", *more)
    return CliRunner().invoke(profile, arguments)
