"""Version of the wire contract.

The contract is append-only inside a major version: a newer minor version may append fields
to the end of a message and nothing else, so either side may be upgraded first.
"""

from __future__ import annotations

PROTOCOL_MAJOR = 1
PROTOCOL_MINOR = 8


def speaks(major: int) -> bool:
    """Whether this build understands messages of protocol ``major``."""
    return major == PROTOCOL_MAJOR


def describe(major: int, minor: int) -> str:
    return f"{major}.{minor}"


OURS = describe(PROTOCOL_MAJOR, PROTOCOL_MINOR)
