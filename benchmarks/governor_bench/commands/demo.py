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
@click.option(
    "--rounds",
    type=click.IntRange(1, 100),
    default=2,
    show_default=True,
    help="Turns of each policy.",
)
@click.option(
    "--scale",
    type=click.FloatRange(1, 100),
    default=2.0,
    show_default=True,
    help="Slows the emulated GPU down so many times, for a host that does not keep up with it.",
)
@click.option("--quick", is_flag=True, help="One turn of each policy.")
@json_option
def demo(folder: Path, rounds: int, scale: float, quick: bool, json_path: str) -> None:
    """Stock SGLang with a GPU's step times, one load, three policies: what users get of each."""
    from governor_bench.demo.run import Settings, run

    run(folder, Settings(rounds=1 if quick else rounds, scale=scale, quick=quick), json_path)
