"""What all commands share: progress on standard error, the report where it was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from controller_service.commands.outputs import require_writable
from governor_bench.envelope import write_json


def _check(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    if value and value != "-" and not ctx.resilient_parsing:
        # Not after an hour of measuring.
        require_writable("--json", Path(value), makes_parents=True)
    return value


json_option = click.option(
    "--json",
    "json_path",
    default="",
    callback=_check,
    help="Write the report there; '-' is standard output.",
)


def progress_bar() -> Progress:
    return Progress(console=Console(stderr=True), transient=True)


def finish(report: dict[str, Any], json_path: str, line: str) -> None:
    if json_path:
        write_json(report, json_path)
    if json_path != "-":
        click.echo(line)
