"""``governor model``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from controller_service.commands.client import call, controller_option, token_option

PATIENCE_S = 60.0
"""Loading and comparing a model takes seconds on a busy machine."""

engine_option = click.option("--engine", default="", help="This engine alone.  [default: all]")


@click.group()
def model() -> None:
    """Show, promote or roll back the model that a running controller predicts by."""


@model.command()
@controller_option
def show(controller: str) -> None:
    """Print what each engine's steps are predicted by."""
    engines = call(controller, "/v1/model")["engines"]
    if not engines:
        click.echo("no engine has introduced itself")
    for engine in engines:
        _show(engine)


@model.command()
@click.argument("folder", type=click.Path(path_type=Path))
@engine_option
@click.option("--force", is_flag=True, help="Even if it is no better, or was rolled back.")
@controller_option
@token_option
def promote(
    folder: Path, engine: str, force: bool, controller: str, token_file: Path | None
) -> None:
    """Have the controller predict by the model in FOLDER, if it is better than what does now.

    FOLDER, as 'governor fit' writes it, is read by the controller, on its machine.
    """
    answer = call(
        controller,
        "/v1/model",
        {"path": str(folder.absolute()), "engine": engine, "force": force},
        token_file=token_file,
        timeout_s=PATIENCE_S,
    )
    click.echo(f"{answer['family']} model {answer['model']}")
    if not answer["engines"]:
        click.echo("no engine has introduced itself; the model is kept for those that come")
    for result in answer["engines"]:
        click.echo(f"{result['engine']}: {result['result']} ({result['why']})")


@model.command()
@engine_option
@controller_option
@token_option
def rollback(engine: str, controller: str, token_file: Path | None) -> None:
    """Go back to what predicted before."""
    answer = call(
        controller,
        "/v1/model/rollback",
        {"engine": engine},
        method="POST",
        token_file=token_file,
    )
    for result in answer["engines"]:
        click.echo(
            f"{result['engine']}: predicts by {result['predicts_by']} (was {result['model']})"
        )


def _show(engine: dict[str, Any]) -> None:
    model_id = engine["model"]
    predicts = "the online line" if model_id is None else f"{engine['family']} model {model_id}"
    if not engine["takes_models"]:
        predicts = "what it learns online; it takes no models"
    click.echo(f"{engine['engine']}  {engine['predictor']}: {predicts}")
    if engine["takes_models"]:
        click.echo(f"  engine     {engine['fitted_to']}")
        watched = "  on probation" if engine["watched"] else ""
        click.echo(f"  before     {engine['previous'] or 'the online line'}{watched}")
        click.echo(f"  held out   {engine['held_out_steps']} steps")
    if engine["correction_ratio"] is not None:
        click.echo(f"  correction {engine['correction_ratio']:.3f}")
