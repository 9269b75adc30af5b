"""Markdown tables, and how documents write what stands in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def percent(share: float | None, digits: int = 0) -> str:
    """A share, in per cent; - for none."""
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def ratio(figure: float | None) -> str:
    """- for none."""
    return "-" if figure is None else f"{figure:.3f}"


def listed(places: Iterable[str]) -> str:
    """Places in a row, such as those where something does not hold."""
    return "; ".join(places) or "nowhere"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines)
