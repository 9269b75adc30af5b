"""``governor keys``."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

import click
import zmq.auth

from controller_service.program import governor

SECRET = "{}.key_secret"  # noqa: S105 - a file name
PUBLIC = "{}.key"
FIRST_ENGINE = "engine"
ALLOWED = "engines"
"""Folder of the public keys of the engines that a controller takes."""


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--add-engine", "added", metavar="NAME", help="Only make keys for one more engine.")
@click.option(
    "--force", is_flag=True, help="Replace keys that are there; their owners lose access."
)
def keys(folder: Path, added: str | None, force: bool) -> None:
    """Make the keys with which a controller and its engines meet over tcp://.

    Secrets stay in FOLDER, for you alone to read. Only public keys are printed.
    """
    name = FIRST_ENGINE if added is None else added
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) or name == "controller":
        raise click.ClickException(
            f"--add-engine {name}: use letters, digits, '-' and '_', and not 'controller'"
        )
    made = {name: folder / ALLOWED}
    if added is None:
        made = {"controller": folder, **made}
    elif not (folder / PUBLIC.format("controller")).is_file():
        raise click.ClickException(
            f"{folder} holds no controller's keys; leave out --add-engine to make both"
        )
    try:
        _private(folder)
        _private(folder / ALLOWED)
        if not force:
            _refuse_to_replace(folder, made)
        public = {who: _make(folder, who, place) for who, place in made.items()}
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error
    for who, key in public.items():
        click.echo(f"{who}: public key {key}")
    _say_what_to_set(folder.absolute(), name)


def _private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        raise click.ClickException(f"{folder}: open to other users; chmod 700 {folder}")


def _refuse_to_replace(folder: Path, made: dict[str, Path]) -> None:
    for who, place in made.items():
        for path in (folder / SECRET.format(who), place / PUBLIC.format(who)):
            if os.path.lexists(path):
                raise click.ClickException(
                    f"{path} exists; --force replaces it, --add-engine NAME adds an engine"
                )


def _make(folder: Path, who: str, place: Path) -> str:
    """Make one pair; its secret in ``folder``, its public part in ``place``. Returns the latter."""
    mask = os.umask(0o077)  # never open to others, not even for a moment
    try:
        # Beside the target, so that each file appears whole or not at all.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as fresh:
            public, secret = zmq.auth.create_certificates(fresh, who)
            key, _ = zmq.auth.load_certificate(public)
            shutil.move(secret, folder / SECRET.format(who))
            shutil.move(public, place / PUBLIC.format(who))
    finally:
        os.umask(mask)
    return key.decode("ascii")


def _say_what_to_set(folder: Path, name: str) -> None:
    controller = folder / PUBLIC.format("controller")
    click.echo(
        f"\nThe controller:\n"
        f"  {governor()} serve --endpoint tcp://ADDRESS:PORT \\\n"
        f"      --key-file {folder / SECRET.format('controller')} \\\n"
        f"      --engine-keys {folder / ALLOWED}\n"
        f"Each engine, to whose host these two files must be brought secretly and alone:\n"
        f"  GOVERNOR_ENDPOINT=tcp://ADDRESS:PORT\n"
        f"  GOVERNOR_KEY_FILE={folder / SECRET.format(name)}\n"
        f"  GOVERNOR_CONTROLLER_KEY_FILE={controller}"
    )
