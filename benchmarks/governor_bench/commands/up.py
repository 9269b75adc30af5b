"""``governor up``."""

from __future__ import annotations

from pathlib import Path

import click

from governor_bench.processes import StartFailed, is_free

PORT = click.IntRange(1, 65535)
SET_BY_UP = {"--port": "--port", "--host": None}
"""Arguments of the engine that are given to ``up`` in another way; None: not at all."""


@click.command()
@click.option("--port", type=PORT, help="The engine's.  [default: 30000 if free, else any]")
@click.option("--controller-port", type=PORT, help="[default: 9470 if free, else any]")
@click.option("--policy", default="taper_plus", show_default=True)
@click.option(
    "--log-dir",
    type=click.Path(file_okay=False, writable=True, path_type=Path),
    help="Keep both logs there, and the decision log in its folder 'decisions'.",
)
@click.argument("engine_arguments", nargs=-1, type=click.UNPROCESSED)
def up(
    port: int | None,
    controller_port: int | None,
    policy: str,
    log_dir: Path | None,
    engine_arguments: tuple[str, ...],
) -> None:
    """Engine and controller on this machine's CPU, left running until Ctrl-C.

    ENGINE_ARGUMENTS are SGLang's own, after '--': governor up -- --tp 2
    """
    from controller_service.policies.registry import parse_policy
    from governor_bench.demo.up import run

    _check_ports(port, controller_port)
    try:
        parse_policy(policy)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--policy") from error
    _check_arguments(engine_arguments)
    if log_dir is not None:
        try:
            log_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise click.BadParameter(
                f"{log_dir} cannot be made ({error.strerror}); name a folder that this user may "
                "write to",
                param_hint="--log-dir",
            ) from error
    try:
        run(port, controller_port, policy, log_dir, engine_arguments)
    except StartFailed as error:
        raise click.ClickException(str(error)) from error


def _check_ports(port: int | None, controller_port: int | None) -> None:
    """
    Raises:
        click.BadParameter: a port is taken, or both are the same.
    """
    for name, wanted in (("--port", port), ("--controller-port", controller_port)):
        if wanted is not None and not is_free(wanted):
            raise click.BadParameter(
                f"another process listens at 127.0.0.1:{wanted}; name a free port, or leave the "
                "option out",
                param_hint=name,
            )
    if port is not None and port == controller_port:
        raise click.BadParameter(
            f"{port} is the engine's --port; the controller needs another",
            param_hint="--controller-port",
        )


def _check_arguments(engine_arguments: tuple[str, ...]) -> None:
    """
    Raises:
        click.BadParameter: an argument would move the engine to where nobody looks for it.
    """
    for argument in engine_arguments:
        name = argument.partition("=")[0]
        if name in SET_BY_UP:
            own = SET_BY_UP[name]
            remedy = f"write {own} before the '--'" if own else "the engine listens on loopback"
            raise click.BadParameter(f"{name}: {remedy}", param_hint="ENGINE_ARGUMENTS")
