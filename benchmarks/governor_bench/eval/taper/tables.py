"""Markdown tables of cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def goodput(cell: dict[str, Any]) -> str:
    """Median goodput, and its range over seeds."""
    low, high = cell["goodput_range"]
    return f"{cell['goodput_tok_s']:.0f} ({low:.0f}-{high:.0f})"


def percent(value: float | None) -> str:
    """A share, in per cent; - for none."""
    return "-" if value is None else f"{100 * value:.0f} %"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines)
