"""Entries of the tables."""

from __future__ import annotations

from typing import Any

from governor_bench.eval.chunk.figures import MET


def place_of(cell: dict[str, Any]) -> str:
    """A cell in words."""
    factor = cell.get("target_factor", 1.0)
    targets = "" if factor == 1 else f", targets x {factor:g}"
    return f"{cell['shape']}, {cell['schedule']}, {cell['share']:g}{targets}"


def tpot(figures: dict[str, Any]) -> str:
    """In ms; in brackets where the TTFT target is missed."""
    text = f"{figures['tpot_ms']:.1f}"
    return text if figures["ttft_attainment"] >= MET else f"({text})"


def attained(figures: dict[str, Any]) -> str:
    """In per cent."""
    return f"{100 * figures['ttft_attainment']:.1f}"
