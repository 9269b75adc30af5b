"""``governor demo``."""

from __future__ import annotations

from pathlib import Path

import click

from governor_bench.commands.output import json_option


@click.command()
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build/demo"),
    show_default=True,
)
@click.option("--rounds", default=3, show_default=True, help="Turns of each policy.")
@click.option("--seconds", default=12.0, show_default=True, help="Arrivals per turn.")
@click.option("--quick", is_flag=True, help="One short turn of each policy.")
@json_option
def demo(folder: Path, rounds: int, seconds: float, quick: bool, json_path: str) -> None:
    """One engine, one load, three policies in turns: what each does for its users."""
    from governor_bench.demo.run import run

    if quick:
        rounds, seconds = 1, 6.0
    run(folder, rounds=rounds, seconds=seconds, quick=quick, json_path=json_path)
