"""``governor check faults``."""

from __future__ import annotations

import secrets
from typing import Any

import click

from governor_bench.commands.output import finish, json_option, progress_bar
from governor_bench.envelope import Stopwatch, envelope
from governor_bench.faults.judge import PROMISES


@click.command("faults")
@click.option("--seed", type=int, help="Of the schedule and the requests.  [default: drawn]")
@click.option("--quick", is_flag=True, help="One engine, the main kinds of faults.")
@json_option
def check_faults(seed: int | None, quick: bool, json_path: str) -> None:
    """Break frames, controllers, engines, disks and clocks under load; exit status 1 if anything
    is lost, wrong, leaked, held up or unhandled."""
    from governor_bench.faults.run import check_faults as run
    from governor_bench.faults.target import FaultBenchError

    stopwatch = Stopwatch()
    seed = secrets.randbelow(1 << 31) if seed is None else seed
    click.echo(f"seed {seed}", err=True)
    with progress_bar() as progress:
        task = progress.add_task("", total=None)
        try:
            result = run(seed, lambda stage: progress.update(task, description=stage), quick=quick)
        except FaultBenchError as error:
            raise click.ClickException(f"seed {seed}: {error}") from error
    report = {
        **result,
        **envelope(tier="C+E", seeds=[seed], arguments={"quick": quick}, stopwatch=stopwatch),
    }
    finish(report, json_path, _summary(report))
    if not report["ok"]:
        raise SystemExit(1)


def _summary(report: dict[str, Any]) -> str:
    kinds = ", ".join(f"{kind} {count}" for kind, count in report["faults"].items() if count)
    promises = ", ".join(f"{name} {report[name]}" for name in PROMISES)
    examples = "".join(f"\n  {example}" for example in report["examples"])
    return (
        f"{report['total_faults']} faults ({kinds}) under {report['requests']} requests: "
        f"{promises}{examples}"
    )
