"""A folder of results as one file, for hosts from which few files come back."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

from governor_bench.gpu.results import ResultError

MAX_MEMBER_BYTES = 12 << 20
"""Larger files - long traces - stay behind."""
MAX_BYTES = 256 << 20
"""Of all that is unpacked."""
MAX_MEMBERS = 1000


def pack(folder: Path, archive: Path) -> list[str]:
    """Write ``archive`` anew, whole.

    Returns:
        What was left out as too large.
    """
    left = []
    temporary = archive.with_name(f".{os.getpid()}.{archive.name}")
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(temporary, "w:gz") as tar:
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(folder))
            if not path.is_file() or path.is_symlink() or path.name.startswith("."):
                continue
            if path.stat().st_size > MAX_MEMBER_BYTES:
                left.append(name)
                continue
            tar.add(path, name)
    temporary.replace(archive)
    return left


def unpack(archive: Path, folder: Path) -> None:
    """Restore what ``folder`` does not have yet.

    Raises:
        ResultError: it is no archive of results, or too large.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            total = 0
            for number, member in enumerate(tar):
                total += member.size
                if number >= MAX_MEMBERS or total > MAX_BYTES:
                    raise ResultError(f"{archive}: holds more than an archive of results would")
                if member.isfile() and not (folder / member.name).exists():
                    tar.extract(member, folder, filter="data")
    except (OSError, EOFError, tarfile.TarError) as error:
        raise ResultError(f"{archive}: no archive of 'governor gpu run': {error}") from None
