"""``governor check frames``."""

from __future__ import annotations

import click

from governor_bench.commands.output import finish, json_option, progress_bar
from governor_bench.envelope import Stopwatch, envelope

QUICK = 3000


@click.command("frames")
@click.option("--count", type=click.IntRange(min=1), default=1_000_000, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--quick", is_flag=True, help=f"At most {QUICK} frames a side.")
@json_option
def check_frames(count: int, seed: int, quick: bool, json_path: str) -> None:
    """Malformed frames against a controller and an engine's end; 1 if a promise is broken."""
    from governor_bench.frames.check import check

    stopwatch = Stopwatch()
    count = min(count, QUICK) if quick else count
    with progress_bar() as progress:
        result = check(count, seed, progress=progress)
    report = {
        **result,
        **envelope(
            tier="C",
            seeds=[seed],
            arguments={"count": count, "quick": quick},
            stopwatch=stopwatch,
        ),
    }
    finish(
        report,
        json_path,
        f"{report['frames']} malformed frames a side: {report['crashes']} crashes, "
        f"{report['accepted_malformed']} accepted, memory grew by {report['growth_mib']} MiB; "
        f"{report['unanswered']} of {report['asked']} questions of a healthy engine unanswered, "
        f"{report['late']} late",
    )
    if report["broken"]:
        raise click.ClickException("; ".join(report["broken"]) + ": does not hold")
