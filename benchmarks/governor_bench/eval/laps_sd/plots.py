"""The plots of a report on the order of service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.ticker import LogLocator, StrMethodFormatter

from governor_bench.eval.drawing import plt, save
from governor_bench.eval.laps_sd.judge import LEVELS
from governor_bench.eval.laps_sd.plan import (
    FIRST_COME,
    LEAST_ATTAINED,
    ORACLE,
    OURS,
    SHORTEST_JOB,
    SHOWN_SHARE,
)
from governor_bench.eval.laps_sd.setting import HINTED

Report = dict[str, Any]

STYLES = {
    FIRST_COME.name: ("#1f77b4", "-"),
    LEAST_ATTAINED.name: ("#9467bd", "-"),
    SHORTEST_JOB.name: ("#2ca02c", "-"),
    OURS.name: ("#d62728", "-"),
    ORACLE.name: ("#444444", "--"),
}


def plot_all(report: Report, folder: Path) -> list[Path]:
    """Draw everything that ``report`` holds into ``folder``; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    curve = [*report["curve"], *report["hinted"]["curve"]]
    shown = [cell for cell in report["curve"] if cell["share"] == SHOWN_SHARE]
    return [
        _distributions(shown, folder / "cdf.png"),
        _over_load(curve, "mean_s", "mean latency, s", folder / "mean.png", "Mean latency"),
        _over_load(curve, "p99_s", "p99 latency, s", folder / "p99.png", "p99 of latency"),
    ]


def _distributions(cells: list[Any], path: Path) -> Path:
    figure, axes = plt.subplots(
        1, len(cells), figsize=(4.2 * len(cells) + 0.6, 3.8), squeeze=False, sharey=True
    )
    for axis, cell in zip(axes[0], cells, strict=True):
        for one in cell["figures"]:
            colour, line = STYLES[one["name"]]
            axis.plot(one["latencies_s"], LEVELS, color=colour, linestyle=line, label=one["name"])
        axis.set_title(cell["shape"], fontsize=10)
        axis.set_xlabel("arrival to last token, s", fontsize=9)
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("share of the requests", fontsize=9)
    axes[0][0].legend(fontsize=8)
    figure.suptitle(f"Request latency at load {SHOWN_SHARE:g}", fontsize=11)
    return save(figure, path)


def _over_load(cells: list[Any], field: str, quantity: str, path: Path, title: str) -> Path:
    shapes = list(dict.fromkeys(cell["shape"] for cell in cells))
    figure, axes = plt.subplots(
        1, len(shapes), figsize=(4.2 * len(shapes) + 0.6, 3.8), squeeze=False
    )
    for axis, shape in zip(axes[0], shapes, strict=True):
        mine = [cell for cell in cells if cell["shape"] == shape]
        told = [cell for cell in mine if cell["lengths"] == HINTED]
        prompts = [cell for cell in mine if cell["lengths"] != HINTED]
        lines = [(name, name, *style, prompts) for name, style in STYLES.items()]
        lines.append((f"{OURS.name}, hints", OURS.name, STYLES[OURS.name][0], ":", told))
        for label, name, colour, line, drawn in lines:
            points = [(cell["share"], value(cell, name)[field]) for cell in drawn]
            axis.plot(
                *zip(*points, strict=True), color=colour, linestyle=line, marker=".", label=label
            )
        axis.set_title(shape, fontsize=10)
        axis.set_xlabel("load, of what saturates", fontsize=9)
        axis.set_yscale("log")
        axis.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        for set_formatter in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
            set_formatter(StrMethodFormatter("{x:g}"))
        axis.tick_params(axis="y", which="both", labelsize=8)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel(quantity, fontsize=9)
    axes[0][0].legend(fontsize=8)
    figure.suptitle(f"{title} over load", fontsize=11)
    return save(figure, path)


def value(cell: Report, name: str) -> Report:
    """A contender's figures in a cell."""
    found: Report = next(one for one in cell["figures"] if one["name"] == name)
    return found
