"""``governor policy``."""

from __future__ import annotations

from pathlib import Path

import click

from controller_service.commands.client import call, controller_option, token_option


@click.group()
def policy() -> None:
    """Show, list or switch the policy of a running controller."""


@policy.command("set")
@click.argument("name")
@controller_option
@token_option
def set_policy(name: str, controller: str, token_file: Path | None) -> None:
    """Switch to policy NAME, such as taper or cap:2, from the next step on."""
    answer = call(controller, "/v1/policy", {"policy": name}, token_file=token_file)
    click.echo(f"policy: {answer['policy']} (was {answer['previous']})")


@policy.command()
@controller_option
def show(controller: str) -> None:
    """Print the policy that runs."""
    click.echo(call(controller, "/v1/status")["policy"])


@policy.command("list")
def list_policies() -> None:
    """List the policies that this installation has."""
    from controller_service.policies.registry import policy_kinds  # noqa: PLC0415

    for name, kind in policy_kinds().items():
        click.echo(f"{name:10} {kind.summary}" + (f"  ({kind.usage})" if kind.usage else ""))
