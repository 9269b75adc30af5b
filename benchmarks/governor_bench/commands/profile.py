"""``governor profile``."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller_service.commands.client import DEFAULT_CONTROLLER, token_in, token_option
from controller_service.commands.outputs import require_writable
from governor_bench.processes import like_ctrl_c

if TYPE_CHECKING:
    from governor_bench.profiling.engine import EngineFacts

LEAST_BUDGET_S = 10.0
_UNITS_S = {"s": 1, "m": 60, "h": 3600}


class Duration(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """``90s``, ``5m``, ``1h``; a bare number is seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)([smh]?)", str(value).strip())
        seconds = float(found[1]) * _UNITS_S[found[2] or "s"] if found else 0.0
        if seconds < LEAST_BUDGET_S:
            self.fail(
                f"{value!r}: expected at least {LEAST_BUDGET_S:g}s, such as 90s, 5m or 1h",
                param,
                ctx,
            )
        return seconds


@click.command("profile")
@click.option("--url", required=True, help="Base URL of the engine.")
@click.option(
    "--controller",
    default=DEFAULT_CONTROLLER,
    show_default=True,
    envvar="GOVERNOR_CONTROLLER_URL",
    metavar="URL",
    help="HTTP address of the controller that governs it.",
)
@token_option
@click.option("--engine", default="", help="The engine's id, if the controller serves several.")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The profile, a .json file; finished points are kept beside it.",
)
@click.option(
    "--samples",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Measured steps for 'governor fit'; default: beside the profile, .samples.npz.",
)
@click.option("--budget", type=Duration(), default="5m", show_default=True, help="Wall-clock time.")
@click.option("--max-rows", type=click.IntRange(min=1), help="At most so many rows.")
@click.option("--max-context", type=click.IntRange(min=1), help="Most tokens of one row.")
@click.option(
    "--share",
    type=click.FloatRange(0.05, 1.0),
    default=0.5,
    show_default=True,
    help="Of the time that the engine may be kept busy.",
)
@click.option(
    "--others",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Wait while the engine serves more requests than these.",
)
@click.option("--vocabulary", type=click.IntRange(min=4), default=2000, show_default=True)
@click.option("--name", default="", help="The profile's name; default: model and device.")
@click.option(
    "--resume/--fresh", default=True, show_default=True, help="Keep finished points, or begin anew."
)
def profile(
    url: str,
    controller: str,
    token_file: Path | None,
    engine: str,
    output: Path,
    samples: Path | None,
    budget: float,
    max_rows: int | None,
    max_context: int | None,
    share: float,
    others: int,
    vocabulary: int,
    name: str,
    resume: bool,
) -> None:
    """Measure how long a live engine's steps take, and write a profile of it.

    Sends requests of its own to the engine and reads from the controller how long their steps
    took. Waits while others use the engine. See docs/profiling.md.
    """
    from governor_profiles import ProfileError
    from rich.console import Console

    from governor_bench.profiling.engine import ControllerApi, Engine, ProfilingFailed
    from governor_bench.profiling.finish import write_results
    from governor_bench.profiling.plan import make_plan
    from governor_bench.profiling.points_file import PointsFile
    from governor_bench.profiling.prompts import Prompts
    from governor_bench.profiling.report import progress_bar, summary, teller
    from governor_bench.profiling.run import Settings, Sweep

    for option, address in (("--url", url), ("--controller", controller)):
        if not address.startswith(("http://", "https://")):
            raise click.BadParameter("expected http://HOST:PORT", param_hint=option)
    if output.suffix != ".json":
        raise click.BadParameter(f"{output}: must end in .json", param_hint="--output")
    samples_path = samples or output.with_suffix(".samples.npz")
    if samples_path.suffix != ".npz":
        raise click.BadParameter(f"{samples_path}: must end in .npz", param_hint="--samples")
    require_writable("--output", output, makes_parents=True)
    require_writable("--samples", samples_path, makes_parents=True)
    console = Console(stderr=True)
    try:
        api = ControllerApi(
            controller.rstrip("/"), "" if token_file is None else token_in(token_file)
        )
        facts = api.engine(engine)
        limits = facts.limits(max_rows, max_context)
        notes = PointsFile(Path(f"{output}.points.jsonl"), facts.key, fresh=not resume)
        settings = Settings(budget, share, others)
        with progress_bar(console) as progress:
            sweep = Sweep(
                Engine(url.rstrip("/"), facts.dp_rank),
                api,
                facts,
                limits,
                notes,
                Prompts(vocabulary, time.time_ns()),
                settings,
                teller(progress, budget),
            )
            with like_ctrl_c():
                outcome = sweep.run(make_plan(limits))
        written = write_results(
            output, samples_path, facts, notes.measured, name or _name_of(facts), _today()
        )
    except (ProfilingFailed, ProfileError) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        raise click.ClickException(
            f"interrupted; the same command goes on from {output}.points.jsonl"
        ) from None
    console.print(summary(written, facts, notes.measured, outcome, output, samples_path))


def _name_of(facts: EngineFacts) -> str:
    model = facts.model.rstrip("/").rpartition("/")[2]
    parts = [model, facts.device, f"tp{facts.tp_size}" if facts.tp_size > 1 else ""]
    text = re.sub(r"[^a-z0-9.]+", "-", "-".join(filter(None, parts)).lower()).strip("-")
    return text[:100] or "profile"


def _today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")
