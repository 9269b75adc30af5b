"""The plots of a report on prefill budgets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.ticker import LogLocator, StrMethodFormatter

from governor_bench.eval.chunk.plan import ADAPTIVE, DEFAULT, FIXED
from governor_bench.eval.drawing import plt, save

Report = dict[str, Any]

GREYS = ("#d9d9d9", "#c2c2c2", "#a8a8a8", "#8c8c8c", "#6e6e6e", "#505050", "#2b2b2b")
STYLES = {
    **{one.name: (grey, "--") for one, grey in zip(FIXED, GREYS, strict=True)},
    DEFAULT.name: ("#1f77b4", "-"),
    ADAPTIVE.name: ("#d62728", "-"),
}


def plot_all(report: Report, folder: Path) -> list[Path]:
    """Draw everything that ``report`` holds into ``folder``; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    curve = [cell for cell in report["curve"] if cell["target_factor"] == 1.0]
    drawn = [
        _over_load(
            curve, "tpot_ms", "mean TPOT, ms", folder / "tpot.png", "TPOT over load", log=True
        ),
        _over_load(
            curve,
            "short_ttft_p99_s",
            "p99 TTFT, s",
            folder / "ttft.png",
            "TTFT over load; of long_bursts, the short requests",
            log=True,
        ),
        _over_load(
            curve,
            "ttft_attainment",
            "share within TTFT target",
            folder / "attainment.png",
            "TTFT attainment over load",
            log=False,
        ),
    ]
    if report.get("over_time"):
        drawn.append(_burst(report["over_time"], folder / "burst.png"))
    return drawn


def _over_load(
    cells: list[Any], field: str, label: str, path: Path, title: str, *, log: bool
) -> Path:
    """One figure of every contender against load; a row a schedule, a column a shape."""
    shapes = list(dict.fromkeys(cell["shape"] for cell in cells))
    schedules = list(dict.fromkeys(cell["schedule"] for cell in cells))
    figure, axes = plt.subplots(
        len(schedules),
        len(shapes),
        figsize=(3.6 * len(shapes) + 1.6, 3.0 * len(schedules) + 0.5),
        squeeze=False,
        sharex=True,
        sharey="col",
    )
    for row, schedule in zip(axes, schedules, strict=True):
        for axis, shape in zip(row, shapes, strict=True):
            mine = [
                cell for cell in cells if (cell["shape"], cell["schedule"]) == (shape, schedule)
            ]
            for name, (colour, line) in STYLES.items():
                points = [(cell["share"], value(cell, name)[field]) for cell in mine]
                axis.plot(
                    *zip(*points, strict=True),
                    color=colour,
                    linestyle=line,
                    marker=".",
                    label=name,
                    linewidth=2.0 if line == "-" else 1.2,
                )
            axis.set_title(f"{shape}, {schedule}", fontsize=9)
            axis.grid(alpha=0.3)
            if log:
                _logarithmic(axis)
    for axis in axes[-1]:
        axis.set_xlabel("load, of what saturates", fontsize=9)
    for row in axes:
        row[0].set_ylabel(label, fontsize=9)
    handles, names = axes[0][0].get_legend_handles_labels()
    axes[0][-1].legend(handles, names, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.suptitle(title, fontsize=11)
    return save(figure, path)


def _burst(shown: Report, path: Path) -> Path:
    """TTFT, TPOT and what each step prefills, while a burst of long prompts passes."""
    runs = shown["runs"]
    figure, axes = plt.subplots(
        3, len(runs), figsize=(4.6 * len(runs), 8.0), squeeze=False, sharex=True, sharey="row"
    )
    for column, (name, run) in zip(axes.T, runs.items(), strict=True):
        for is_long, colour, label in ((0, "#1f77b4", "short chats"), (1, "#d62728", "burst")):
            mine = [one for one in run["requests"] if one[3] == is_long and one[1] is not None]
            look = {"s": 10 if not is_long else 28, "color": colour, "label": label}
            column[0].scatter([one[0] for one in mine], [one[1] for one in mine], **look)
            column[1].scatter([one[0] for one in mine], [one[2] for one in mine], **look)
        prefill = [step for step in run["steps"] if step[1]]
        column[2].scatter(
            [step[0] for step in prefill], [step[1] for step in prefill], s=5, color="#444444"
        )
        column[0].set_title(name, fontsize=10)
        column[2].set_xlabel("s after the burst came", fontsize=9)
        for axis in column:
            axis.grid(alpha=0.3)
            axis.axvline(0.0, color="black", linewidth=0.6, linestyle=":")
    for axis, label in zip(
        axes[:, 0], ("TTFT, s", "TPOT, ms", "prompt tokens a step"), strict=True
    ):
        axis.set_ylabel(label, fontsize=9)
    _logarithmic(axes[0][0])
    _logarithmic(axes[1][0])
    axes[2][0].set_yscale("log", base=2)
    axes[2][0].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes[0][0].legend(fontsize=8)
    figure.suptitle(
        f"A burst of long prompts beside short chats, load {shown['share']:g}; requests by when "
        "they were sent",
        fontsize=11,
    )
    return save(figure, path)


def _logarithmic(axis: Any) -> None:
    """In plain numbers: 1, 2, 5, 10 and so on."""
    axis.set_yscale("log")
    axis.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    for set_formatter in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
        set_formatter(StrMethodFormatter("{x:g}"))
    axis.tick_params(axis="y", which="both", labelsize=8)


def value(cell: Report, name: str) -> Report:
    """A contender's figures in a cell."""
    return next(one for one in cell["figures"] if one["name"] == name)
