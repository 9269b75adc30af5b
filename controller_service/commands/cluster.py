"""The option that sends work to a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import click


def _check(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value and "://" not in value:
        raise click.BadParameter(
            f"{value!r} is no address of a Dask scheduler; expected tcp://HOST:8786 or "
            "tls://HOST:8786",
            ctx,
            parameter,
        )
    return value or None


cluster_option = click.option(
    "--cluster",
    envvar="GOVERNOR_CLUSTER",
    metavar="ADDRESS",
    callback=_check,
    help="Dask scheduler to compute on, such as tcp://HOST:8786; default: this machine's cores. "
    "Trusted networks only: docs/scaling.md.",
)


@contextlib.contextmanager
def cluster_errors() -> Iterator[None]:
    """A cluster that cannot be used ends the command with one line.

    Raises:
        click.ClickException: says why, and what to do.
    """
    from controller_service.learning.distributed import ClusterError  # noqa: PLC0415 - no work, no need

    try:
        yield
    except ClusterError as error:
        raise click.ClickException(str(error)) from None
