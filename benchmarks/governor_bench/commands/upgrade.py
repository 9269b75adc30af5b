"""``governor check upgrade``."""

from __future__ import annotations

from typing import Any

import click

from governor_bench.commands.output import finish, json_option, progress_bar
from governor_bench.envelope import Stopwatch, envelope


@click.command("upgrade")
@click.option("--quick", is_flag=True, help="Two contracts, and one restart of each kind.")
@json_option
def check_upgrade(quick: bool, json_path: str) -> None:
    """Peers of every released contract, and a rolling restart; exit status 1 if a user notices."""
    from governor_bench.upgrade.run import SEED, check

    stopwatch = Stopwatch()
    with progress_bar() as progress:
        task = progress.add_task("", total=None)
        result = check(quick=quick, on_stage=lambda stage: progress.update(task, description=stage))
    report = {
        **result,
        "ok": not faults(result),
        **envelope(tier="C", seeds=[SEED], arguments={"quick": quick}, stopwatch=stopwatch),
    }
    finish(report, json_path, _summary(report))
    if not report["ok"]:
        raise click.ClickException("; ".join(faults(result)))


def faults(result: dict[str, Any]) -> list[str]:
    """What went otherwise than promised."""
    from governor_bench.upgrade.run import RESUME_S

    silent = [one["stage"] for one in result["stages"] if one.get("silent")]
    slow = [one["stage"] for one in result["stages"] if one.get("resumed_s", 0.0) >= RESUME_S]
    idle = [one["stage"] for one in result["stages"] if not one["requests"]]
    return [
        *(
            f"{result[key]} {what}"
            for key, what in (
                ("lost_requests", "requests lost"),
                ("token_mismatches", "outputs differ"),
            )
            if result[key]
        ),
        *(f"{stage}: an engine got no decision that it could apply" for stage in silent),
        *(f"{stage}: no decisions within {RESUME_S:.0f} s" for stage in slow),
        *(f"{stage}: nobody was served" for stage in idle),
    ]


def _summary(report: dict[str, Any]) -> str:
    lines = [
        f"{one['stage']:36} {one['requests']:5d} requests, {one['lost_requests']} lost, "
        f"{one['token_mismatches']} differ"
        + (f", decisions after {one['resumed_s']:.2f} s" if "resumed_s" in one else "")
        for one in report["stages"]
    ]
    return "\n".join(lines)
