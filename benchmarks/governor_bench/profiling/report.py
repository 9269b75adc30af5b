"""What a profile run shows: a progress bar while it measures, tables at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from controller_service.program import governor
from governor_bench.profiling.build import Built, Measured, decode_cells
from governor_bench.profiling.draft_report import draft_table, drafting_lines
from governor_bench.profiling.engine import EngineFacts
from governor_bench.profiling.run import Outcome
from governor_bench.profiling.steps import DECODE

LINES = 12
CONTEXT_EDGES = (1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20)
_NAMES = ("<1k", "1k-4k", "4k-16k", "16k-64k", "64k-256k", "256k-1M", ">=1M")


def progress_bar(console: Console) -> Progress:
    """The bar is the budget: how many points it will buy is not known beforehand."""
    return Progress(
        TextColumn("{task.fields[points]} points"),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} s"),
        TextColumn("{task.description}"),
        console=console,
        transient=True,
    )


def teller(progress: Progress, budget_s: float) -> Callable[[int, float, str], None]:
    """What a sweep calls to show how far it is."""
    task = progress.add_task("", total=budget_s, points=0)

    def tell(points: int, gone_s: float, text: str) -> None:
        left_s = max(0.0, budget_s - gone_s)
        progress.update(
            task,
            completed=min(gone_s, budget_s),
            points=points,
            description=f"{left_s:.0f} s left; {text}",
        )

    return tell


def summary(
    built: Built,
    facts: EngineFacts,
    measured: Sequence[Measured],
    outcome: Outcome,
    path: Path,
    samples: Path,
) -> Group:
    """Tables of what was measured, the profile's error, and what to do next."""
    profile = built.profile
    error = f"{profile.error_pct:.2f} %" if profile.error_pct is not None else "unknown"
    prefill_us = 1e6 * profile.prefill_token_s
    lines = [
        f"{len(measured)} points, {outcome.measured} of them now; {outcome.left} of the plan left; "
        f"waited {outcome.waited_s:.0f} s for others",
        f"profile {path}: error on cells left out of the fit {error}; "
        f"prefill {prefill_us:.1f} us a token",
        f"samples {samples}",
    ]
    if facts.speculates:
        lines[2:2] = drafting_lines(built, facts)
    if outcome.incomplete:
        shown = "; ".join(outcome.incomplete[:3])
        lines.append(
            f"given up, since others' rows or policy, or late rows, were in the way: {shown}"
            + (f" and {len(outcome.incomplete) - 3} more" if len(outcome.incomplete) > 3 else "")
        )
    if outcome.left:
        lines.append("the same command goes on where this run ended")
    lines.append(f"next: {governor()} fit {samples} -o MODEL_DIR")
    tables = [cell_table(measured)]
    if built.drafting is not None:
        tables.append(draft_table(measured))
    return Group(*tables, *lines)


def cell_table(measured: Sequence[Measured]) -> Table:
    """Median step times in ms by rows and summed context, one column a range of contexts."""
    cells = [cell for item in measured for cell in decode_cells(item)]
    groups: dict[int, dict[int, list[float]]] = {}
    for cell in cells:
        column = sum(cell.context_tokens >= edge for edge in CONTEXT_EDGES)
        groups.setdefault(cell.rows, {}).setdefault(column, []).append(1e3 * cell.step_s)
    columns = sorted({column for line in groups.values() for column in line})
    steps = sum(step.kind == DECODE for item in measured for step in item.steps)
    prefills = sum(step.kind != DECODE for item in measured for step in item.steps)
    table = Table(
        title="Decode steps, ms, by rows and summed context (mean of medians)",
        caption=f"{len(cells)} cells of {steps} decode steps; {prefills} steps with prefill",
    )
    table.add_column("rows", justify="right")
    for column in columns:
        table.add_column(_NAMES[column], justify="right")
    for rows in _thinned(sorted(groups)):
        found = groups[rows]
        texts = [
            f"{sum(found[column]) / len(found[column]):.2f}" if column in found else ""
            for column in columns
        ]
        table.add_row(str(rows), *texts)
    return table


def _thinned(rows: list[int]) -> list[int]:
    """At most a page of them, the first and the last included."""
    if len(rows) <= LINES:
        return rows
    return [rows[round(index * (len(rows) - 1) / (LINES - 1))] for index in range(LINES)]
