"""``governor check clients``."""

from __future__ import annotations

import click

from governor_bench.commands.output import finish, json_option, progress_bar
from governor_bench.envelope import Stopwatch, envelope


@click.command("clients")
@click.option("--requests", type=click.IntRange(min=1), default=24, show_default=True)
@click.option("--quick", is_flag=True, help="One client, fewer requests.")
@json_option
def check_clients(requests: int, quick: bool, json_path: str) -> None:
    """SGLang's benchmark client, unchanged, against a governed engine; 1 if a request is lost."""
    from governor_bench.clients import BACKENDS, ClientFailed, check

    stopwatch = Stopwatch()
    backends = BACKENDS[:1] if quick else BACKENDS
    requests = min(requests, 8) if quick else requests
    try:
        with progress_bar() as progress:
            result = check(requests, backends, progress=progress)
    except ClientFailed as error:
        raise click.ClickException(str(error)) from None
    report = {
        **result,
        **envelope(
            tier="C",
            seeds=[1],
            arguments={"requests": requests, "quick": quick},
            stopwatch=stopwatch,
        ),
    }
    finish(
        report,
        json_path,
        f"{report['completed']} of {report['expected']} requests of "
        f"{len(report['clients'])} clients completed",
    )
    if report["completed"] != report["expected"] or not report["connected"]:
        raise SystemExit(1)
