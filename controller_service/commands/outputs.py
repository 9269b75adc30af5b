"""Files and folders that a command will write, checked before its work rather than after."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click


def require_writable(option: str, path: Path, *, makes_parents: bool) -> None:
    """Check that something can be written at ``path``. Leaves nothing behind.

    Args:
        makes_parents: whether the command makes folders that are missing.

    Raises:
        click.ClickException: names the option, why not, and what helps.
    """
    try:
        folder = path.absolute().parent
        while makes_parents and not folder.exists():
            folder = folder.parent
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise unwritable(option, path, error) from error


def unwritable(option: str, path: Path, error: OSError) -> click.ClickException:
    """What to raise where writing failed."""
    return click.ClickException(
        f"{option} {path}: cannot be written ({error.strerror or error}); name one in a folder "
        "that you may write to"
    )
