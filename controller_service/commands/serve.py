"""``governor serve``."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource
from governor_protos.settings import is_set_by_kubernetes

from controller_service.config import ConfigError, default_endpoint, load_config
from controller_service.predictors.registry import predictor_names

F = TypeVar("F", bound=Callable[..., Any])

FILE = click.Path(path_type=Path, dir_okay=False)

VARIABLES = {
    "endpoint": "GOVERNOR_ENDPOINT",
    "allow_plain_tcp": "GOVERNOR_ALLOW_PLAIN_TCP",
    "policy": "GOVERNOR_POLICY",
    "predictor": "GOVERNOR_PREDICTOR",
    "http": "GOVERNOR_CONTROLLER_HTTP",
    "http_token_file": "GOVERNOR_HTTP_TOKEN_FILE",
    "log_dir": "GOVERNOR_LOG_DIR",
}
"""Settings that a variable sets, too: those with which an engine starts a controller of its own,
and those on which both sides must agree. ``GOVERNOR_KEY_FILE`` is none of them, as it names an
engine's secret, and ``GOVERNOR_CONFIG`` names an engine's file."""

_OF_CLIENTS = {"GOVERNOR_CONTROLLER_URL", "GOVERNOR_CLUSTER"}


def setting(flag: str, **more: Any) -> Callable[[F], F]:
    """An option of ``serve`` that a variable sets, too."""
    variable = VARIABLES[flag.removeprefix("--").replace("-", "_")]
    return click.option(flag, envvar=variable, show_envvar=True, **more)


@click.command()
@click.option("--config", type=FILE, help="YAML file with these settings; flags override it.")
@setting("--endpoint", help=f"Where engines connect.  [default: {default_endpoint()}]")
@click.option("--key-file", help="The controller's secret key, for tcp:// (see 'governor keys').")
@click.option("--engine-keys", metavar="DIR", help="Public keys of engines that may connect.")
@setting(
    "--allow-plain-tcp", is_flag=True, default=None, help="Allow tcp:// in the clear, on loopback."
)
@setting("--policy", help="Such as taper, cap:2, eager, off.  [default: taper_plus]")
@setting("--predictor", type=click.Choice(predictor_names()), help="[default: corrected-linear]")
@click.option("--model", metavar="DIR", help="Model to start with.  [default: learn online]")
@setting("--http", metavar="HOST:PORT", help="Health, metrics, API.  [default: 127.0.0.1:9470]")
@click.option("--http-allow-remote", is_flag=True, default=None, help="Let --http leave loopback.")
@setting("--http-token-file", help="Token without which nothing is changed over HTTP.")
@click.option(
    "--http-fallback-any", is_flag=True, default=None, help="Take a free port if it is taken."
)
@click.option("--exit-with-parent", is_flag=True, default=None, help="End when stdin ends.")
@click.option("--lease-steps", type=int, help="Steps that standing orders hold.  [default: 4]")
@click.option("--replan-steps", type=int, help="Steps that one plan stands.  [default: 1]")
@click.option("--peer-frames-per-s", type=int, help="Most frames an engine.  [default: 2000]")
@click.option("--peer-mb-per-s", type=int, help="Most MiB/s an engine.  [default: 64]")
@setting("--log-dir", help="Folder of the decision log.  [default: none is kept]")
@click.option("--log-max-mb", type=int, help="Most that the log takes, MiB.  [default: 512]")
@click.option("--log-rows", type=int, help="Records in a buffer of the log.  [default: 8192]")
@click.option("--log-level", help="debug, info, warning or error.  [default: info]")
def serve(config: Path | None, **settings: Any) -> None:
    """Run the controller until it is told to stop.

    A flag wins over a variable, a variable over the file.
    """
    ctx = click.get_current_context()
    named = {
        key: variable
        for key, variable in VARIABLES.items()
        if ctx.get_parameter_source(key) is ParameterSource.ENVIRONMENT
    }
    try:
        configured = load_config(config, settings, named)
    except ConfigError as error:
        raise click.ClickException(str(error)) from error
    if unread := unread_variables(os.environ):
        click.echo(
            f"governor: {'; '.join(unread)}: the controller does not read it; it reads "
            f"{', '.join(VARIABLES.values())}, and 'governor serve --help' lists the flags",
            err=True,
        )
    # Loading the predictors takes a second; a wrong flag should not.
    from controller_service.app import serve as run  # noqa: PLC0415

    try:
        run(configured, click.echo)
    except ValueError as error:
        raise click.ClickException(str(error)) from error


def unread_variables(environ: Mapping[str, str]) -> list[str]:
    """Variables with Governor's prefix that set nothing here, each with the nearest that does."""
    known = {*VARIABLES.values(), *_OF_CLIENTS}
    names = sorted(name for name in environ if name.startswith("GOVERNOR_") and name not in known)
    return [
        name + _nearest(name, VARIABLES.values())
        for name in names
        if environ[name] and not is_set_by_kubernetes(name)
    ]


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.85)
    return f" (did you mean {near[0]}?)" if near else ""
