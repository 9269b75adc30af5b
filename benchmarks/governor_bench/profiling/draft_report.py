"""What is printed of drafting at the end of a profile run."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from governor_bench.profiling.build import Built, Measured, cells_of_drafts
from governor_bench.profiling.engine import EngineFacts


def drafting_lines(built: Built, facts: EngineFacts) -> list[str]:
    """Costs of drafting and their error; what changing the length takes, by the engine's word."""
    switch_us = 1e6 * (facts.drafting.switch_s if facts.drafting is not None else 0.0)
    switch = f"a switch of length {switch_us:.0f} us by the engine's account"
    costs = built.drafting
    if costs is None:
        return [f"drafting: not measured at two batch sizes, raise the budget; {switch}"]
    worst = costs.worst
    return [
        f"drafting: {1e6 * costs.step_s:.0f} us a draft step, {1e6 * costs.row_s:.1f} us a row in "
        f"it, {1e6 * costs.token_s:.1f} us a verified draft token; {switch}",
        f"drafting: error on batch sizes left out of the fit {costs.error_text}, largest of those "
        f"in it {100 * costs.worst_error:+.1f} % ({worst.rows} rows, {worst.draft_length} drafts)",
    ]


def draft_table(measured: Sequence[Measured]) -> Table:
    """Median step times in ms by rows and draft length, one line a batch."""
    batches = [cells for item in measured if (cells := cells_of_drafts(item))]
    lengths = sorted({cell.draft_length for cells in batches for cell in cells})
    table = Table(title="Steps with drafts, ms, by rows and draft length (medians)")
    table.add_column("rows", justify="right")
    table.add_column("context", justify="right")
    for length in lengths:
        table.add_column(str(length), justify="right")
    for cells in sorted(batches, key=lambda cells: (cells[0].rows, cells[0].context_tokens)):
        found = {cell.draft_length: f"{1e3 * cell.step_s:.2f}" for cell in cells}
        table.add_row(
            str(cells[0].rows),
            f"{cells[0].context_tokens:.0f}",
            *(found.get(length, "") for length in lengths),
        )
    return table
