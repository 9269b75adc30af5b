"""The version of the installed distribution."""

from __future__ import annotations

from importlib import metadata

DISTRIBUTION = "sglang-governor"


def package_version() -> str:
    """The installed version; ``0+unknown`` when run from a tree that is not installed."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "0+unknown"
