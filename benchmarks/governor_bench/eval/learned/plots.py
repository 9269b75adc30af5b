"""The plots of a report on predictors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.patches import Rectangle

from governor_bench.eval.drawing import plt, save
from governor_bench.eval.learned.recovery import CURVE, CURVE_EVERY, MACHINE, RIGHT
from governor_bench.eval.learned.speed import CANDIDATES

COLOURS = {
    "published": "#7f7f7f",
    "linear": "#d62728",
    "boosted": "#2ca02c",
    "extra_trees": "#9467bd",
    "measured": "#1f77b4",
}
OTHER = "#8c564b"
PREDICTOR_STYLES = {
    "linear": ("#d62728", ":"),
    "corrected-linear": ("#d62728", "-"),
    "boosted": ("#2ca02c", ":"),
    "corrected-boosted": ("#2ca02c", "-"),
}

Report = dict[str, Any]


def plot_all(report: Report, folder: Path) -> list[Path]:
    """Draw everything that ``report`` holds into ``folder``; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = shown_cell(report)
    drawn = [
        _against_measured(shown, folder / "predicted.png"),
        _by_regime(shown, folder / "regimes.png"),
        _asking(report["predict_us_by_model"], folder / "predict_us.png"),
    ]
    if any(cell["is_bent"] for cell in report["cells"]):
        drawn.append(_externality(report["cells"], folder / "externality.png"))
    if report["recovery"]:
        drawn.append(_recovery(report["recovery"], folder / "recovery.png"))
    return drawn


def shown_cell(report: Report) -> Report:
    """The cell whose steps are drawn one by one: the first whose true cost is not linear."""
    cells = report["cells"]
    bent: Report = next((cell for cell in cells if cell["is_bent"]), cells[0])
    return bent


def _against_measured(cell: Report, path: Path) -> Path:
    models = cell["judged"]["figures"]
    figure, axes = plt.subplots(1, len(models), figsize=(3.4 * len(models), 3.9), squeeze=False)
    both = np.array([pair for model in models for pair in model["points"]])
    low, high = both.min() * 0.95, both.max() * 1.05
    for axis, model in zip(axes[0], models, strict=True):
        points = np.array(model["points"])
        axis.plot([low, high], [low, high], color="black", linewidth=0.8)
        axis.scatter(points[:, 0], points[:, 1], s=8, alpha=0.5, color=_colour(model["model"]))
        axis.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
        for direction in (axis.xaxis, axis.yaxis):
            direction.set_major_locator(plt.LogLocator(subs=(1, 2, 3, 5)))
            direction.set_major_formatter(plt.FuncFormatter(lambda value, _: f"{value:g}"))
            direction.set_minor_locator(plt.NullLocator())
        axis.set_title(
            f"{model['model']}: {100 * model['held_regimes']['mape']:.2f} %", fontsize=10
        )
        axis.set_xlabel("measured step, ms")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("predicted step, ms")
    figure.suptitle(
        f"Regimes that were held out; mean error above each plot ({cell['name']}, "
        f"seed {cell['seed']})",
        fontsize=11,
    )
    return save(figure, path)


def _by_regime(cell: Report, path: Path) -> Path:
    models = cell["judged"]["figures"]
    regimes = [regime for model in models for regime in model["regimes"]]
    row_axis = range(
        min(item["rows"] for item in regimes), max(item["rows"] for item in regimes) + 1
    )
    context_axis = range(
        min(item["context"] for item in regimes), max(item["context"] for item in regimes) + 1
    )
    figure, axes = plt.subplots(
        1, len(models), figsize=(3.2 * len(models) + 1.0, 4.4), squeeze=False, sharey=True,
        layout="constrained",
    )  # fmt: skip
    image = None
    for axis, model in zip(axes[0], models, strict=True):
        grid = np.full((len(context_axis), len(row_axis)), np.nan)
        for item in model["regimes"]:
            across, up = item["rows"] - row_axis[0], item["context"] - context_axis[0]
            grid[up, across] = 100 * item["mape"]
            if item["held_out"]:
                axis.add_patch(
                    Rectangle((across - 0.5, up - 0.5), 1, 1, fill=False, edgecolor="black", lw=1.6)
                )
        image = axis.imshow(grid, origin="lower", aspect="auto", cmap="YlOrRd", vmin=0, vmax=6)
        axis.set_xticks(range(len(row_axis)), [str(2**bucket) for bucket in row_axis], fontsize=7)
        axis.set_yticks(
            range(len(context_axis)), [_short(2**bucket) for bucket in context_axis], fontsize=7
        )
        axis.set_title(model["model"], fontsize=10)
        axis.set_xlabel("rows, up to")
    axes[0][0].set_ylabel("summed context in tokens, up to")
    figure.colorbar(image, ax=axes[0].tolist(), label="mean step error, % (6 and more: darkest)")
    figure.suptitle(
        f"Step error by regime; framed: held out ({cell['name']}, seed {cell['seed']})", fontsize=11
    )
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path


def _externality(cells: list[Report], path: Path) -> Path:
    """By place where the cost is not linear: the worst over seeds and sources."""
    worst: dict[str, dict[str, float]] = {}
    for cell in cells:
        for model in cell["judged"]["figures"] if cell["is_bent"] else ():
            for place, error in model["externality"].items():
                if error is not None:
                    found = worst.setdefault(place, {})
                    found[model["model"]] = max(found.get(model["model"], 0.0), error)
    figure, axis = plt.subplots(figsize=(8, 4))
    _bars(axis, worst, 100.0)
    axis.set_ylabel("externality error, % of the true one")
    axis.set_title("Cost of added rows where it is not linear; worst over sources and seeds")
    return save(figure, path)


def _asking(speed: dict[str, dict[str, float]], path: Path) -> Path:
    figure, axis = plt.subplots(figsize=(8, 4))
    by_size = {
        f"{count} candidate{'s' if count > 1 else ''}": {
            name: mine[str(count)] for name, mine in speed.items()
        }
        for count in CANDIDATES
    }
    _bars(axis, by_size, 1.0)
    axis.set_ylabel("microseconds a call, corrected")
    axis.set_title("What it costs to ask")
    return save(figure, path)


def _bars(axis: Any, groups: dict[str, dict[str, float]], factor: float) -> None:
    names = list(dict.fromkeys(name for found in groups.values() for name in found))
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        places = [index + (number - (len(names) - 1) / 2) * width for index in range(len(groups))]
        heights = [factor * found.get(name, 0.0) for found in groups.values()]
        bars = axis.bar(places, heights, width, label=name, color=_colour(name))
        axis.bar_label(bars, fmt="%.3g", fontsize=7)
    axis.set_xticks(range(len(groups)), list(groups))
    axis.grid(alpha=0.3, axis="y")
    axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.08), ncol=len(names))


def _recovery(recovered: list[Report], path: Path) -> Path:
    """One column a change; error above, attainment below; the first profile and seed."""
    first = recovered[0]["task"]
    mine = [
        one
        for one in recovered
        if (one["task"]["profile"], one["task"]["seed"]) == (first["profile"], first["seed"])
    ]
    changes = list(dict.fromkeys((one["task"]["changes"], one["task"]["factor"]) for one in mine))
    figure, axes = plt.subplots(
        2, len(changes), figsize=(3.9 * len(changes), 6), squeeze=False, sharex=True, sharey="row"
    )
    for column, (what, factor) in enumerate(changes):
        for one in mine:
            task = one["task"]
            if (task["changes"], task["factor"]) != (what, factor):
                continue
            colour, line = PREDICTOR_STYLES.get(one["predictor"], (OTHER, "-"))
            look = {"color": colour, "linestyle": line, "label": one["predictor"], "lw": 1.3}
            for axis, key in zip(axes[:, column], ("error_curve", "attainment_curve"), strict=True):
                values = [100 * value for value in one[key]]
                steps = range(CURVE[0], CURVE[0] + CURVE_EVERY * len(values), CURVE_EVERY)
                axis.plot(steps, values, **look)
        axes[0][column].axhline(100 * RIGHT, color="black", linewidth=0.8, linestyle="--")
        axes[0][column].set_title(_change(what, factor), fontsize=10)
        axes[0][column].set_ylim(0, 110)
        axes[1][column].set_ylim(0, 105)
        axes[1][column].set_xlabel("steps since the change")
        for axis in axes[:, column]:
            axis.axvline(0, color="black", linewidth=0.8)
            axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("median step error, last 16 steps, %")
    axes[1][0].set_ylabel("tokens on time, last 64 steps, %")
    axes[0][-1].legend(fontsize=8)
    return save(figure, path)


def _change(what: str, factor: float) -> str:
    if what == MACHINE:
        return f"the machine takes {factor:g} x as long"
    return f"the predictor becomes wrong by {100 * (factor - 1):+.0f} %"


def _short(tokens: int) -> str:
    return f"{tokens // 1024}k" if tokens >= 1024 else str(tokens)


def _colour(name: str) -> str:
    return COLOURS.get(name, OTHER)
