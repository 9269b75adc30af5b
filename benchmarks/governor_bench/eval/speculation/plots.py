"""The plots of a report on speculation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from governor_bench.eval.drawing import plt, save
from governor_bench.eval.speculation.cpu.section import names_of
from governor_bench.eval.speculation.plan import FIXED, PORTABLE, SGLANG, TABLE, TURBOSPEC

Report = dict[str, Any]

COLOURS = {
    SGLANG.name: "#ff7f0e",
    TABLE: "#9467bd",
    PORTABLE.name: "#17becf",
    TURBOSPEC.name: "#d62728",
}
GREYS = ("#cccccc", "#b0b0b0", "#909090", "#707070", "#505050", "#303030")


def plot_all(report: Report, folder: Path) -> list[Path]:
    """Draw everything that ``report`` holds into ``folder``; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [
        _grid(report["cells"], folder / "grid.png"),
        _lengths(report["cells"], folder / "lengths.png"),
    ]
    if report.get("trees"):
        drawn.append(_trees(report["trees"], folder / "trees.png"))
    if report.get("targets"):
        drawn.append(_targets(report["targets"], folder / "targets.png"))
    return drawn


def plot_computed(report: Report, path: Path) -> Path:
    """Tier C: every policy over no drafts, with the range over rounds; one panel for each load."""
    path.parent.mkdir(parents=True, exist_ok=True)
    loads = list(dict.fromkeys(cell["load"] for cell in report["cells"]))
    figure, axes = plt.subplots(len(loads), 1, figsize=(9, 2.6 * len(loads)), squeeze=False)
    names = names_of(report)
    greys = dict(zip((one.name for one in FIXED), GREYS, strict=True))
    width = 0.85 / len(names)
    for axis, load in zip(axes.flat, loads, strict=True):
        cells = [cell for cell in report["cells"] if cell["load"] == load]
        for number, name in enumerate(names):
            found = [next(one for one in cell["figures"] if one["name"] == name) for cell in cells]
            plain = [_value(cell, FIXED[0].name) for cell in cells]
            heights = [one["tokens_per_s"] / base for one, base in zip(found, plain, strict=True)]
            reach = [
                [
                    abs(one["tokens_range"][end] / base - height)
                    for one, base, height in zip(found, plain, heights, strict=True)
                ]
                for end in (0, 1)
            ]
            axis.bar(
                [at + (number - (len(names) - 1) / 2) * width for at in range(len(cells))],
                heights,
                width,
                yerr=reach,
                error_kw={"elinewidth": 0.8},
                color=greys.get(name) or COLOURS.get(name, "#2ca02c"),
                label=name,
            )
        axis.axhline(1.0, color="black", linewidth=0.6)
        axis.set_xticks(range(len(cells)), [cell["text"] for cell in cells], fontsize=8)
        axis.set_title(f"{load} users" if load > 1 else "1 user", fontsize=10)
        axis.set_ylabel("tokens/s over no drafts", fontsize=8)
        axis.grid(alpha=0.3, axis="y")
    axes.flat[0].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return save(figure, path)


def place_of(cell: dict[str, Any]) -> str:
    """A cell's acceptance in words; on tier C, its text."""
    if "text" in cell:
        return str(cell["text"])
    if cell["other_level"] is None:
        return f"acceptance {cell['level']:g}"
    return f"acceptance {cell['other_level']:g}, then {cell['level']:g}"


def _grid(cells: list[Any], path: Path) -> Path:
    """Tokens per second over those of no drafts, against load; one panel for each acceptance."""
    places = list(dict.fromkeys(place_of(cell) for cell in cells))
    across = min(4, len(places))
    down = -(-len(places) // across)
    figure, axes = plt.subplots(
        down, across, figsize=(3.9 * across, 3.3 * down), squeeze=False, sharex=True
    )
    styles = {one.name: (grey, "--") for one, grey in zip(FIXED, GREYS, strict=True)}
    styles |= {name: (colour, "-") for name, colour in COLOURS.items()}
    run = {one["name"] for one in cells[0]["figures"]}
    styles = {name: style for name, style in styles.items() if name in run}
    for axis, place in zip(axes.flat, places, strict=False):
        mine = [cell for cell in cells if place_of(cell) == place]
        for name, (colour, line) in styles.items():
            points = [
                (cell["load"], _value(cell, name) / _value(cell, FIXED[0].name)) for cell in mine
            ]
            axis.plot(
                *zip(*points, strict=True), color=colour, linestyle=line, marker=".", label=name
            )
        axis.set_title(place, fontsize=10)
        axis.set_xscale("log")
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(places) :]:
        axis.axis("off")
    for axis in axes[-1]:
        axis.set_xlabel("users")
    for row in axes:
        row[0].set_ylabel("tokens/s over no drafts")
    axes.flat[0].legend(fontsize=7)
    return save(figure, path)


def _lengths(cells: list[Any], path: Path) -> Path:
    """How much ``turbospec`` drafts."""
    figure, axis = plt.subplots(figsize=(7, 4))
    for place in dict.fromkeys(place_of(cell) for cell in cells):
        points = [
            (cell["load"], one["draft_tokens_per_row"])
            for cell in cells
            if place_of(cell) == place
            for one in cell["figures"]
            if one["name"] == TURBOSPEC.name
        ]
        axis.plot(*zip(*points, strict=True), marker="o", label=place)
    axis.set(xscale="log", xlabel="users", ylabel="draft tokens verified a row and step")
    axis.set_title("What turbospec drafts")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return save(figure, path)


def _trees(cells: list[Any], path: Path) -> Path:
    return _bars(
        cells,
        "tokens_per_s",
        "tokens/s over no drafts",
        "Trees, global and local",
        path,
        FIXED[0].name,
    )


def _targets(cells: list[Any], path: Path) -> Path:
    return _bars(
        cells,
        "goodput_tok_s",
        "goodput, tok/s",
        "Half the users with a target for TPOT",
        path,
        None,
    )


def _bars(
    cells: list[Any], field: str, label: str, title: str, path: Path, over: str | None
) -> Path:
    figure, axis = plt.subplots(figsize=(max(7, 3.0 * len(cells)), 4))
    names = [one["name"] for one in cells[0]["figures"]]
    width = 0.85 / len(names)
    for number, name in enumerate(names):
        places = [index + (number - (len(names) - 1) / 2) * width for index in range(len(cells))]
        heights = []
        for cell in cells:
            found = {one["name"]: one[field] for one in cell["figures"]}
            heights.append(found[name] / (found[over] if over else 1.0))
        axis.bar(places, heights, width, label=name)
    axis.set_xticks(
        range(len(cells)), [f"{cell['load']} users\n{place_of(cell)}" for cell in cells], fontsize=8
    )
    axis.set_ylabel(label)
    axis.set_title(title)
    axis.grid(alpha=0.3, axis="y")
    axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return save(figure, path)


def _value(cell: dict[str, Any], name: str) -> float:
    return float(next(one["tokens_per_s"] for one in cell["figures"] if one["name"] == name))
