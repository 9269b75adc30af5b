"""Plots of what a GPU showed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from governor_bench.eval.drawing import plt, save
from governor_bench.gpu.figures import Calibration, Parking, Taper

if TYPE_CHECKING:
    from governor_bench.gpu.report import Measured


def plot_all(found: Sequence[Measured], folder: Path) -> list[Path]:
    """Draw what ``found`` holds into ``folder``; returns the files."""
    drawn = []
    for one in found:
        name = f"{one.target.model}-{one.target.device}"
        for result in one.results.values():
            figures = result.figures
            folder.mkdir(parents=True, exist_ok=True)
            if isinstance(figures, Calibration):
                drawn.append(_calibration(figures, folder / f"{name}-steps.png"))
            elif isinstance(figures, Parking):
                drawn.append(_parking(figures, folder / f"{name}-parking.png"))
            elif isinstance(figures, Taper):
                drawn.append(_taper(figures, folder / f"{name}-taper.png"))
    return drawn


def _calibration(one: Calibration, path: Path) -> Path:
    figure, axes = plt.subplots(figsize=(6, 4))
    points = axes.scatter(
        [cell.rows for cell in one.cells],
        [cell.step_ms for cell in one.cells],
        c=[cell.context_tokens for cell in one.cells],
        s=14,
    )
    axes.set(xscale="log", xlabel="rows", ylabel="decode step, ms")
    figure.colorbar(points, label="summed context, tokens")
    return save(figure, path)


def _parking(one: Parking, path: Path) -> Path:
    figure, axes = plt.subplots(figsize=(6, 4))
    axes.errorbar(
        [cell.parked for cell in one.cells],
        [cell.cost_us for cell in one.cells],
        yerr=[cell.spread_us / 2 for cell in one.cells],
        fmt="o-",
    )
    axes.axhline(0, color="#7f7f7f", linewidth=0.8)
    axes.set(xscale="log", xlabel="parked rows", ylabel="cost of parking, us a step")
    return save(figure, path)


def _taper(one: Taper, path: Path) -> Path:
    loads = sorted({cell.users for cell in one.cells})
    figure, axes = plt.subplots(1, len(loads), figsize=(5 * len(loads), 4), squeeze=False)
    for place, users in zip(axes[0], loads, strict=True):
        cells = [cell for cell in one.cells if cell.users == users]
        place.barh([cell.policy for cell in cells], [cell.goodput_tok_s for cell in cells])
        place.invert_yaxis()
        place.set(title=f"{users:g} users", xlabel="goodput, tok/s")
    return save(figure, path)
