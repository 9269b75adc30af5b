"""Reports as they were written by ``--json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

MAX_BYTES = 64 << 20


def read_report(path: Path, command: str) -> dict[str, Any]:
    """
    Args:
        command: that writes the file.

    Raises:
        FileNotFoundError: there is no such file; says which command writes one.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: write it with '{command} --json {path}'")
    with path.open("rb") as file:
        report: dict[str, Any] = msgspec.json.decode(file.read(MAX_BYTES), type=dict)
    return report
