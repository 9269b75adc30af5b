"""The ``governor`` command. Each subcommand is imported when it is used, and not before.

Other packages add subcommands through the entry-point group ``governor.commands`` (name -> click
command). One whose needs are not installed says so when it is called, and disturbs no other.
"""

from __future__ import annotations

from importlib import import_module, metadata

import click

from controller_service.summaries import summary_of
from controller_service.version import DISTRIBUTION, package_version

ENTRY_POINTS = "governor.commands"

BUILT_IN = {
    "serve": ("controller_service.commands.serve:serve", "Run the controller."),
    "keys": ("controller_service.commands.keys:keys", "Make keys for connections over tcp://."),
    "policy": ("controller_service.commands.policy:policy", "Show, list or switch policies."),
    "log": ("controller_service.commands.log:log", "Show, sum up or export the decision log."),
    "model": (
        "controller_service.commands.model:model",
        "Show, promote or roll back the model that predicts.",
    ),
    "fit": ("controller_service.commands.fit:fit", "Fit models of step latency to logs."),
    "status": ("controller_service.commands.status:status", "Show the controller and its engines."),
    "version": ("controller_service.commands.version:version", "Print versions."),
}


class LazyCommands(click.Group):
    """A group whose commands are known by name and loaded on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*BUILT_IN, *sorted(set(_offered()) - set(BUILT_IN))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in BUILT_IN:
            module, _, attribute = BUILT_IN[cmd_name][0].partition(":")
            command: click.Command = getattr(import_module(module), attribute)
            return command
        point = _offered().get(cmd_name)
        return None if point is None else _load(point)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing what they need."""
        rows = [
            (name, BUILT_IN[name][1] if name in BUILT_IN else summary_of(_offered()[name]))
            for name in self.list_commands(ctx)
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _offered() -> dict[str, metadata.EntryPoint]:
    return {point.name: point for point in metadata.entry_points(group=ENTRY_POINTS)}


def _load(point: metadata.EntryPoint) -> click.Command:
    try:
        command = point.load()
    except (ImportError, AttributeError) as error:
        return _unavailable(point, error)
    if not isinstance(command, click.Command):
        return _unavailable(point, TypeError("it is not a click command"))
    return command


def _remedy(point: metadata.EntryPoint) -> str:
    owner = point.dist.name if point.dist else DISTRIBUTION
    if owner == DISTRIBUTION:
        return f"Install what it needs with: pip install '{DISTRIBUTION}[bench]'"
    return f"It comes with {owner}: see there what it needs."


def _unavailable(point: metadata.EntryPoint, error: Exception) -> click.Command:
    """A stand-in that says what to install."""

    def explain() -> None:
        raise click.ClickException(
            f"'governor {point.name}' ({point.value}) cannot be loaded: {error}. {_remedy(point)}"
        )

    return click.Command(
        point.name,
        callback=lambda **_: explain(),
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True, "help_option_names": []},
    )


@click.group(cls=LazyCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_version(), prog_name=DISTRIBUTION)
def main() -> None:
    """Governor: a per-step governor for SGLang."""
