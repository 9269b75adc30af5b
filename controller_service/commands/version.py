"""``governor version``."""

from __future__ import annotations

import platform

import click
from governor_protos import OURS

from controller_service.version import package_version


@click.command()
def version() -> None:
    """Print versions."""
    click.echo(f"sglang-governor {package_version()}")
    click.echo(f"wire contract {OURS}")
    click.echo(f"python {platform.python_version()}")
