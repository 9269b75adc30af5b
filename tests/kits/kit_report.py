"""The table of kits and configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kit_engines import Stage
from kit_runs import KitResult
from kit_table import LEFT_OUT, SERVERS, Kit, Server

CELL = "kit_cell"
"""Name of the property of a test's report that holds its cell of the table."""


def cell(
    server: Server, kit: Kit, stage: Stage, result: KitResult, known: Mapping[str, str]
) -> dict[str, Any]:
    """What the table says of one kit on one engine; ``known``: what may fail, and why."""
    return {
        "kit": kit.name,
        "server": server.name,
        "stage": stage.name,
        "tests": len(result.tests),
        "failed": sorted(result.failed),
        "known": dict(known),
        "governed": stage.governed,
        "parked": result.parked_row_steps,
    }


def table(version: str, cells: Sequence[dict[str, Any]]) -> str:
    """Kits by configurations, then what fails on stock and what was left out, each with why."""
    stages = sorted({cell["stage"] for cell in cells}, reverse=True)
    shown = {(cell["kit"], cell["server"]) for cell in cells}
    rows = [(kit.name, server.name) for server in SERVERS for kit in server.kits]
    rows = [row for row in rows if row in shown]
    words = {(cell["kit"], cell["server"], cell["stage"]): _words(cell) for cell in cells}
    lines = [
        f"SGLang {version}: tests passed of those run; p: row-steps that were parked meanwhile.",
        "",
        f"| kit | engine | {' | '.join(stages)} |",
        "|---|---|" + "---|" * len(stages),
    ]
    for row in rows:
        found = [words.get((*row, stage), "not run") for stage in stages]
        lines.append(f"| {' | '.join([*row, *found])} |")
    reasons: dict[str, str] = {}
    for entry in cells:
        for test, reason in entry["known"].items():
            reasons[f"{entry['kit']}.{test}"] = reason
    lines += ["", "Fails on stock:", ""]
    lines += [f"- {name}: {reason}" for name, reason in reasons.items()] or ["- none"]
    lines += ["", "Left out:", "", *(f"- {name}: {reason}" for name, reason in LEFT_OUT.items())]
    return "\n".join(lines) + "\n"


def _words(cell: dict[str, Any]) -> str:
    failed = set(cell["failed"])
    words = f"{cell['tests'] - len(failed)} of {cell['tests']}"
    unexpected = sorted(failed - set(cell["known"]))
    if failed:
        words += f"; {len(failed) - len(unexpected)} as on stock"
    if unexpected:
        words += f"; FAILED {', '.join(unexpected)}"
    return words + (f"; p {cell['parked']}" if cell["governed"] else "")
