"""How the document writes figures and places."""

from __future__ import annotations

from typing import Any

from governor_bench.eval import tables

Report = dict[str, Any]


def place_of(cell: Report) -> str:
    """A cell in words."""
    return f"{cell['shape']}, {cell['share']:g}"


def latency(figures: Report | None, field: str) -> str:
    """In seconds; in brackets how many had not ended."""
    if figures is None:
        return "-"
    unfinished = f" ({figures['unfinished']:.0f})" if figures["unfinished"] else ""
    return f"{figures[field]:.2f}{unfinished}"


def percent(share: float | None) -> str:
    return tables.percent(share, 1)


def signed_percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:+.1f} %"


def per_hundred(count: float | None) -> str:
    return "-" if count is None else f"{count:.1f}"
