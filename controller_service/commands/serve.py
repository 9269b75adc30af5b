"""``governor serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from controller_service.config import ConfigError, default_endpoint, load_config
from controller_service.predictors.registry import predictor_names

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option("--config", type=FILE, help="YAML file with these settings; flags override it.")
@click.option("--endpoint", help=f"Where engines connect.  [default: {default_endpoint()}]")
@click.option("--key-file", help="The controller's secret key, for tcp:// (see 'governor keys').")
@click.option("--engine-keys", metavar="DIR", help="Public keys of engines that may connect.")
@click.option(
    "--allow-plain-tcp", is_flag=True, default=None, help="Allow tcp:// in the clear, on loopback."
)
@click.option("--policy", help="Such as taper, cap:2, eager, off.  [default: taper_plus]")
@click.option(
    "--predictor", type=click.Choice(predictor_names()), help="[default: corrected-linear]"
)
@click.option("--model", metavar="DIR", help="Model to start with.  [default: learn online]")
@click.option(
    "--http", metavar="HOST:PORT", help="Health, metrics, API.  [default: 127.0.0.1:9470]"
)
@click.option("--http-allow-remote", is_flag=True, default=None, help="Let --http leave loopback.")
@click.option("--http-token-file", help="Token without which nothing is changed over HTTP.")
@click.option(
    "--http-fallback-any", is_flag=True, default=None, help="Take a free port if it is taken."
)
@click.option("--exit-with-parent", is_flag=True, default=None, help="End when stdin ends.")
@click.option("--lease-steps", type=int, help="Steps that standing orders hold.  [default: 4]")
@click.option("--replan-steps", type=int, help="Steps that one plan stands.  [default: 1]")
@click.option("--peer-frames-per-s", type=int, help="Most frames an engine.  [default: 2000]")
@click.option("--peer-mb-per-s", type=int, help="Most MiB/s an engine.  [default: 64]")
@click.option("--log-dir", help="Folder of the decision log.  [default: none is kept]")
@click.option("--log-max-mb", type=int, help="Most that the log takes, MiB.  [default: 512]")
@click.option("--log-rows", type=int, help="Records in a buffer of the log.  [default: 8192]")
@click.option("--log-level", help="debug, info, warning or error.  [default: info]")
def serve(config: Path | None, **settings: Any) -> None:
    """Run the controller until it is told to stop."""
    try:
        configured = load_config(config, settings)
    except ConfigError as error:
        raise click.ClickException(str(error)) from error
    # Loading the predictors takes a second; a wrong flag should not.
    from controller_service.app import serve as run  # noqa: PLC0415

    try:
        run(configured, click.echo)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
