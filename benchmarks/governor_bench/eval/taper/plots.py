"""The evaluation's plots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from governor_bench.eval.drawing import plt, save
from governor_bench.eval.simulated import simulated
from governor_bench.eval.taper.plan import MIS_SET, PLUS, TAPER, plan

STYLE = {
    "off": ("#7f7f7f", "s", "-"),
    "eager": ("#d62728", "^", "-"),
    "cap 2": ("#c5b0d5", ".", ":"),
    "cap 5": ("#9467bd", ".", ":"),
    "taper": ("#1f77b4", "o", "-"),
    "taper_plus": ("#2ca02c", "o", "-"),
    "clairvoyant": ("#000000", "", "--"),
}
WIDTH_WINDOW_S = (60.0, 90.0)
WIDTH_LOAD = 112.0


def plot_all(report: dict[str, Any], folder: Path) -> list[Path]:
    """Draw everything that ``report`` holds into ``folder``; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [_curve(report, folder / "curve.png")]
    sections = report["sections"]
    if report["tier"] == "S" and not report["arguments"]["quick"]:
        drawn.append(_sensitivity(sections, folder / "sensitivity.png"))
        drawn.append(_switches(report, folder / "switches.png"))
        drawn.append(_width(folder / "width.png"))
    return drawn


def _curve(report: dict[str, Any], path: Path) -> Path:
    """Goodput, attainment and victims' TPOT over load."""
    rows = report["curve"]
    loads = [row["load"] for row in rows]
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.4))
    for name, (colour, marker, line) in STYLE.items():
        if name not in rows[0]["policies"]:
            continue
        mine = [row["policies"][name] for row in rows]
        look = {"color": colour, "marker": marker, "linestyle": line, "label": name}
        axes[0].plot(loads, [cell["goodput_tok_s"] for cell in mine], **look)
        axes[0].fill_between(
            loads,
            [cell["goodput_range"][0] for cell in mine],
            [cell["goodput_range"][1] for cell in mine],
            color=colour,
            alpha=0.15,
            linewidth=0,
        )
        axes[1].plot(loads, [100 * cell["attainment"] for cell in mine], **look)
        axes[2].plot(loads, [cell["victim_tpot_p95_ms"] for cell in mine], **look)
    axes[2].axhline(rows[0]["slo_ms"], color="black", linewidth=0.8, linestyle=":")
    titles = ("goodput, tok/s", "SLO attainment, %", "TPOT of serial requests, p95, ms")
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title)
        axis.set_xlabel("users (closed loop)")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    return save(figure, path)


def _sensitivity(sections: dict[str, Any], path: Path) -> Path:
    """Goodput over the target, and with a predictor that is wrong."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.4))
    _lines(axes[0], sections["slo"], lambda cell: float(cell["slo_ms"]), STYLE)
    axes[0].set_xlabel("TPOT target, ms")
    axes[0].set_ylabel("goodput, tok/s")
    axes[0].set_title("loose and tight targets")
    colours = dict(zip([c.name for c in MIS_SET], ("#1f77b4", "#98df8a", "#2ca02c"), strict=True))
    looks = {name: (colour, "o", "-") for name, colour in colours.items()}
    _lines(axes[1], sections["wrong_predictor"], lambda c: float(c["predictor_factor"]), looks)
    axes[1].set_xlabel("predicted / true step time")
    axes[1].set_title("a predictor that is wrong")
    for axis in axes:
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    return save(figure, path)


def _switches(report: dict[str, Any], path: Path) -> Path:
    """Each improvement and each ablation alone, relative to the published policy."""
    rows = {row["load"]: row["policies"] for row in report["curve"]}
    sections = report["sections"]
    alone = [*sections["ablations"], *sections["switches"]]
    loads = sorted({cell["load"] for cell in alone})
    names = [*dict.fromkeys(cell["name"] for cell in alone), PLUS.name]
    figure, axis = plt.subplots(figsize=(11, 4.4))
    for number, load in enumerate(loads):
        published = rows[load][TAPER.name]["goodput_tok_s"]
        found = {cell["name"]: cell for cell in alone if cell["load"] == load}
        found[PLUS.name] = rows[load][PLUS.name]
        heights = [found[name]["goodput_tok_s"] / published for name in names]
        offset = (number - (len(loads) - 1) / 2) * 0.8 / len(loads)
        places = [index + offset for index in range(len(names))]
        axis.bar(places, heights, 0.8 / len(loads), label=f"{load:g} users")
    axis.axhline(1.0, color="black", linewidth=0.8)
    axis.set_xticks(range(len(names)), names, rotation=15, fontsize=8)
    axis.set_title("goodput relative to TAPER as published")
    axis.legend(fontsize=8)
    return save(figure, path)


def _width(path: Path) -> Path:
    """Rows that advance over time, published against improved."""
    entries = plan([1], quick=False).sections["curve"]
    figure, axis = plt.subplots(figsize=(11, 3.6))
    for name in (TAPER.name, PLUS.name):
        setting = next(
            setting
            for contender, setting in entries
            if contender.name == name and setting.load == WIDTH_LOAD
        )
        steps = simulated(setting).steps
        chosen = (
            (steps.end_s >= WIDTH_WINDOW_S[0])
            & (steps.end_s < WIDTH_WINDOW_S[1])
            & (steps.prefill_tokens == 0)
        )
        axis.plot(steps.end_s[chosen], steps.rows[chosen], color=STYLE[name][0], lw=0.8, label=name)
    axis.set_xlabel("s")
    axis.set_ylabel("rows that advance")
    axis.set_title(f"width over time, {WIDTH_LOAD:g} users")
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=8)
    return save(figure, path)


def _lines(
    axis: Any,
    cells: Sequence[dict[str, Any]],
    place: Callable[[dict[str, Any]], float],
    looks: dict[str, tuple[str, str, str]],
) -> None:
    for name, (colour, marker, line) in looks.items():
        mine = sorted((cell for cell in cells if cell["name"] == name), key=place)
        if mine:
            axis.plot(
                [place(cell) for cell in mine],
                [cell["goodput_tok_s"] for cell in mine],
                color=colour,
                marker=marker,
                linestyle=line,
                label=name,
            )
