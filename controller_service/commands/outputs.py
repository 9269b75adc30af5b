"""Files and folders that a command will write, checked before its work rather than after."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click


def require_writable(option: str, path: Path) -> None:
    """Check that something can be written at ``path``; its parents are made.

    Raises:
        click.ClickException: names the option, why not, and what helps.
    """
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.absolute().parent):
            return
    except OSError as error:
        raise unwritable(option, path, error) from error


def unwritable(option: str, path: Path, error: OSError) -> click.ClickException:
    """What to raise where writing failed."""
    return click.ClickException(
        f"{option} {path}: cannot be written ({error.strerror or error}); name one in a folder "
        "that you may write to"
    )
