"""Files that hold a secret: nobody else may read them, and what they say appears in no message.

Not a message, but both sides of the connection must be equally strict about it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

MAX_SECRET_BYTES = 16 << 10


class SecretFileError(ValueError):
    """A secret's file cannot be used; names the setting, the file and the remedy."""


def read_private(path: Path, setting: str) -> bytes:
    """What a file holds that only its owner can read.

    A file of root's may be readable to its group too: that is how secrets are mounted for a user
    who is not root.

    Args:
        setting: name of the setting that names the file, for errors.

    Raises:
        SecretFileError: unreadable, open to others, not a regular file, or too large.
    """
    try:
        with path.open("rb") as file:
            _check_owner_and_mode(os.fstat(file.fileno()), path, setting)
            text = file.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise SecretFileError(f"{setting}: cannot read {path}: {error.strerror}") from None
    if len(text) > MAX_SECRET_BYTES:
        raise SecretFileError(f"{setting}: {path} is larger than {MAX_SECRET_BYTES} bytes")
    return text


def _check_owner_and_mode(status: os.stat_result, path: Path, setting: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise SecretFileError(f"{setting}: {path} is not a regular file")
    if status.st_uid not in (os.geteuid(), 0):
        raise SecretFileError(f"{setting}: {path} belongs to another user; use a file of your own")
    open_to = stat.S_IRWXO | stat.S_IWGRP | stat.S_IXGRP
    if status.st_uid != 0 or os.geteuid() == 0:
        open_to |= stat.S_IRGRP
    if status.st_mode & open_to:
        raise SecretFileError(
            f"{setting}: {path} is open to other users; chmod 600 {path}, and make a new secret "
            "if others may have read it"
        )
