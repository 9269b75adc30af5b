"""What drafting costs, from batches that went through an engine's draft lengths. Pure.

What a step with drafts takes beyond one of the same rows without is
``d * draft tokens + length * (e + f * rows)``: ``draft_token_s``, ``draft_step_s`` and
``draft_row_s`` of a profile. Where every row drafts alike, rows x length is both how many tokens
are verified and how many rows go through draft steps: only the sum of d and f shows then. It is
split as shipped profiles do, where a verified token costs what a row costs, and the rest is f.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from governor_bench.profiling.cells import Cell
from governor_bench.profiling.nonnegative import nonnegative
from governor_bench.profiling.surface import Surface

Floats = npt.NDArray[np.float64]

LEAST_SIZES = 2
"""Batch sizes without which a draft step and its rows cannot be told apart."""
BELIEF = 1e-3
"""Weight of the assumed split beside the measurements: it decides only what they leave open."""


class DraftCosts(msgspec.Struct, frozen=True):
    """Costs of a profile, and how far steps are from them."""

    token_s: float
    step_s: float
    row_s: float
    cells: int
    """Medians that they were fitted to."""
    sizes: int
    """Batch sizes among them."""
    error: float | None
    """Mean relative error of the step time on cells of batch sizes that were left out of the fit:
    large where verification is not linear in rows x drafts. None where two sizes do not remain."""
    worst: Cell
    """The cell that the costs fit worst."""
    worst_error: float
    """Relative, of its step time; above 0 where the step is predicted to be longer."""

    @property
    def error_text(self) -> str:
        """For people."""
        return "unknown" if self.error is None else f"{100 * self.error:.1f} % of a step"

    def drafting_s(self, length: float, rows: float) -> float:
        """What the draft steps alone take."""
        return length * (self.step_s + self.row_s * rows)


class _Drafted(msgspec.Struct, frozen=True, eq=False):
    """Cells with drafts beside what the same batch took without."""

    cells: list[Cell]
    columns: Floats
    """Draft tokens, length, length x rows; shape ``(cells, 3)``."""
    extra_s: Floats
    step_s: Floats


def draft_costs(
    batches: Sequence[Sequence[Cell]], surface: Surface, row_s: float
) -> DraftCosts | None:
    """Costs with the least relative error; None if too little was measured.

    Args:
        batches: the cells of each batch, those without drafts among them.
        surface: step times without drafts, for how context grew between the cells of a batch.
        row_s: cost of a row, which a verified token is taken to have where nothing tells.
    """
    drafted = _beyond_no_drafts(batches, surface)
    rows = np.array([cell.rows for cell in drafted.cells])
    sizes = np.unique(rows)
    if len(sizes) < LEAST_SIZES:
        return None
    costs = _fit(drafted, np.ones(len(rows), dtype=np.bool_), row_s)
    off = [
        np.abs(_errors(drafted, rows == size, _fit(drafted, rows != size, row_s)))
        for size in sizes
        if len(sizes) > LEAST_SIZES
    ]
    inside = _errors(drafted, np.ones(len(rows), dtype=np.bool_), costs)
    worst = int(np.argmax(np.abs(inside)))
    token_s, step_s, row_step_s = map(float, costs)
    return DraftCosts(
        token_s,
        step_s,
        row_step_s,
        len(rows),
        len(sizes),
        float(np.concatenate(off).mean()) if off else None,
        drafted.cells[worst],
        float(inside[worst]),
    )


def _beyond_no_drafts(batches: Sequence[Sequence[Cell]], surface: Surface) -> _Drafted:
    found: list[tuple[Cell, float]] = []
    for batch in batches:
        for plain in [cell for cell in batch if not cell.draft_length]:
            found += [
                (cell, cell.step_s - plain.step_s - _grown_s(plain, cell, surface))
                for cell in batch
                if cell.draft_length
            ]
    cells = [cell for cell, _ in found]
    columns = [
        (cell.draft_tokens, cell.draft_length, cell.draft_length * cell.rows) for cell in cells
    ]
    return _Drafted(
        cells,
        np.array(columns, dtype=np.float64).reshape(-1, 3),
        np.array([extra_s for _, extra_s in found]),
        np.array([cell.step_s for cell in cells]),
    )


def _grown_s(plain: Cell, cell: Cell, surface: Surface) -> float:
    """What a step without drafts took longer by then, as the rows' contexts had grown."""
    rows = np.full(2, float(surface.padded(cell.rows)))
    before_s, after_s = surface.step_s(rows, np.array([plain.context_tokens, cell.context_tokens]))
    return float(after_s - before_s)


def _fit(drafted: _Drafted, chosen: npt.NDArray[np.bool_], row_s: float) -> Floats:
    step_s = drafted.step_s[chosen]
    relative = drafted.columns[chosen] / step_s[:, None]
    # As large as the measurements are, so that it counts alike for slow and for fast engines.
    pull = BELIEF * float(np.linalg.norm(relative[:, 0]))
    return nonnegative(
        np.concatenate([relative, [(pull, 0.0, 0.0)]]),
        np.concatenate([drafted.extra_s[chosen] / step_s, [pull * row_s]]),
    )


def _errors(drafted: _Drafted, chosen: npt.NDArray[np.bool_], costs: Floats) -> Floats:
    """Of the step time, relative."""
    missed_s = drafted.columns[chosen] @ costs - drafted.extra_s[chosen]
    relative: Floats = missed_s / drafted.step_s[chosen]
    return relative
