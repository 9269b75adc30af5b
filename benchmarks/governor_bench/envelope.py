"""What stands around every result: how it came about, and where it goes."""

from __future__ import annotations

import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

PACKAGES = ("sglang-governor", "sglang", "torch", "pyzmq", "msgspec", "lightgbm", "numpy")

READABLE_BYTES = 256 << 10
"""Larger reports are written on one line: a line for each number would treble them."""


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start_s = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self._start_s


def envelope(
    *, tier: str, seeds: list[int], arguments: dict[str, Any], stopwatch: Stopwatch
) -> dict[str, Any]:
    """The keys that say how a report came about."""
    return {
        "tier": tier,
        "seeds": seeds,
        "versions": {"python": platform.python_version(), **package_versions()},
        "machine": {"cpus": os.cpu_count(), "machine": platform.machine()},
        "arguments": arguments,
        "seconds": round(stopwatch.seconds(), 1),
    }


def write_json(report: dict[str, Any], path: str) -> None:
    """Write a report to a file, or to standard output for ``-``."""
    text = msgspec.json.encode(report)
    if len(text) < READABLE_BYTES:
        text = msgspec.json.format(text, indent=2)
    if path == "-":
        sys.stdout.write(text.decode() + "\n")
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(text + b"\n")


def package_versions(*more: str) -> dict[str, str]:
    """Versions of the packages that results hang on, and of ``more``."""
    found = {}
    for package in (*PACKAGES, *more):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found
