"""``governor check`` and ``governor doctor``."""

from __future__ import annotations

import click

from governor_bench.commands.clients import check_clients
from governor_bench.commands.faults import check_faults
from governor_bench.commands.frames import check_frames
from governor_bench.commands.learning import check_learning
from governor_bench.commands.output import finish, json_option, progress_bar
from governor_bench.commands.soak import check_soak
from governor_bench.commands.upgrade import check_upgrade
from governor_bench.envelope import Stopwatch, envelope


@click.group()
def check() -> None:
    """Prove promises on this machine."""


check.add_command(check_clients)
check.add_command(check_frames)
check.add_command(check_faults)
check.add_command(check_learning)
check.add_command(check_soak)
check.add_command(check_upgrade)


@check.command("equality")
@click.option("--requests", default=72, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--loop", type=click.Choice(["normal", "overlap", "both"]), default="both")
@click.option("--policy", "policies", default="taper,random:0.5", show_default=True)
@click.option("--engine-args", default="", help="Further engine arguments, e.g. '--tp 2'.")
@click.option("--quick", is_flag=True, help="One loop, fewer requests.")
@json_option
def check_equality(
    requests: int,
    seed: int,
    loop: str,
    policies: str,
    engine_args: str,
    quick: bool,
    json_path: str,
) -> None:
    """Governed greedy tokens against stock ones; exit status 1 if any differ or none was parked."""
    from governor_bench.equality.command import check as run_check

    stopwatch = Stopwatch()
    loops = ["normal", "overlap"] if loop == "both" else [loop]
    if quick:
        loops, requests = loops[:1], min(requests, 16)
    with progress_bar() as progress:
        result = run_check(
            requests=requests,
            seed=seed,
            loops=loops,
            policies=policies.split(","),
            arguments=tuple(engine_args.split()),
            progress=progress,
        )
    report = {
        **result,
        **envelope(
            tier="C",
            seeds=[seed],
            arguments={
                "requests": requests,
                "loops": loops,
                "policies": policies,
                "engine_args": engine_args,
                "quick": quick,
            },
            stopwatch=stopwatch,
        ),
    }
    finish(
        report,
        json_path,
        f"{report['requests']} requests, {report['mismatched']} differ from stock, "
        f"{report['parked_row_steps']} row-steps parked",
    )
    if not report["parked_row_steps"]:
        raise click.ClickException("nothing was parked, so nothing was checked; see --policy")
    if report["mismatched"]:
        raise SystemExit(1)


@click.command()
@click.option("--controller", default="", help="HTTP address of a controller that should run.")
@click.option("--no-engine", is_flag=True, help="Skip the comparison with a stock engine.")
@json_option
def doctor(controller: str, no_engine: bool, json_path: str) -> None:
    """Check this installation; exit status 1 if anything is wrong."""
    from governor_bench.doctor import examine

    with progress_bar() as progress:
        report = examine(controller, with_engine=not no_engine, progress=progress)
    lines = [
        f"{'ok  ' if item['ok'] else 'FAIL'} {item['name']}: {item['detail']}"
        for item in report["checks"]
    ]
    finish(report, json_path, "\n".join(lines))
    if not report["ok"]:
        raise SystemExit(1)
