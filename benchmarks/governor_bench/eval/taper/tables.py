"""Entries of the tables."""

from __future__ import annotations

from typing import Any


def goodput(cell: dict[str, Any]) -> str:
    """Median goodput, and its range over seeds."""
    low, high = cell["goodput_range"]
    return f"{cell['goodput_tok_s']:.0f} ({low:.0f}-{high:.0f})"
