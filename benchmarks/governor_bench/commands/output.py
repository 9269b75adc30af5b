"""What all commands share: progress on standard error, the report where it was asked for."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from governor_bench.envelope import write_json

json_option = click.option(
    "--json", "json_path", default="", help="Write the report there; '-' is standard output."
)


def progress_bar() -> Progress:
    return Progress(console=Console(stderr=True), transient=True)


def finish(report: dict[str, Any], json_path: str, line: str) -> None:
    if json_path:
        write_json(report, json_path)
    if json_path != "-":
        click.echo(line)
