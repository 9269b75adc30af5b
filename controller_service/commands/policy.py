"""``governor policy``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from controller_service.commands.client import call, controller_option, token_option
from controller_service.commands.tables import console

if TYPE_CHECKING:
    from controller_service.policies.base import PolicyKind


@click.group()
def policy() -> None:
    """Show, list or switch policies."""


@policy.command("set")
@click.argument("name")
@controller_option
@token_option
def set_policy(name: str, controller: str, token_file: Path | None) -> None:
    """Switch to policy NAME, such as taper or cap:2, from the next step on."""
    answer = call(controller, "/v1/policy", {"policy": name}, token_file=token_file)
    click.echo(f"policy: {answer['policy']} (was {answer['previous']})")
    for one in answer.get("unmet", ()):
        click.echo(
            f"engine {one['engine']}: {one['policy']} does nothing there ({one['why']})", err=True
        )


@policy.command()
@click.argument("name", required=False)
@controller_option
def show(name: str | None, controller: str) -> None:
    """Print the policy that runs; with NAME, what can be set of that policy.

    NAME is one of this installation, as 'governor policy list' names them. A running controller
    tells its own at GET /v1/policies.
    """
    if name is None:
        click.echo(call(controller, "/v1/status")["policy"])
        return
    for written in name.split("+"):
        _show_settings(_kind(written.strip().partition(":")[0]))


@policy.command("list")
def list_policies() -> None:
    """List the policies that this installation has."""
    from rich.table import Table  # noqa: PLC0415

    from controller_service.policies.registry import policy_kinds  # noqa: PLC0415

    table = Table.grid(padding=(0, 2))
    for kind in policy_kinds().values():
        table.add_row(kind.name, str(kind.knob), kind.summary, kind.usage)
    console().print(table, markup=False, highlight=False)


def _kind(name: str) -> PolicyKind:
    from controller_service.policies.registry import UnknownPolicy, policy_kind  # noqa: PLC0415

    try:
        return policy_kind(name)
    except UnknownPolicy as error:
        raise click.ClickException(str(error)) from error


def _show_settings(kind: PolicyKind) -> None:
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from controller_service.policies.described import described  # noqa: PLC0415

    told = described(kind)
    click.echo(f"{told.name}: {told.summary}")
    click.echo(f"decides about: {told.decides}    written like: {told.usage}")
    if not told.settings:
        click.echo("it has no settings")
        return
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("setting", "default", "may be", "meaning"):
        table.add_column(heading)
    for one in told.settings:
        default = "must be given" if one.default is None else _as_written(one.default)
        table.add_row(*map(Text, (one.name, default, one.may_be, one.meaning)))
    console().print(table)


def _as_written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
