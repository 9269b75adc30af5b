"""A stretch of steps: width, predicted and measured step time, slack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from governor_bench.demo.measure import DECODE, Turn

STRETCH = 260
"""Decode steps shown."""


def plot_steps(turns: Sequence[Turn], tpot_slo_ms: float, path: Path) -> None:
    """Draw one turn of each policy over the same arrivals, one column a policy."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        3, len(turns), figsize=(5 * len(turns), 8), sharex="col", sharey="row", squeeze=False
    )
    for column, turn in enumerate(turns):
        steps = busiest([step for step in turn.steps if step["kind"] == DECODE], STRETCH)
        at = range(len(steps))
        width, time, slack = (axes[row][column] for row in range(3))
        width.set_title(turn.policy)
        width.fill_between(
            at,
            [_total(step) for step in steps],
            step="mid",
            color="0.85",
            label="rows in the batch",
        )
        width.step(at, [step["rows"] for step in steps], where="mid", label="rows that advanced")
        time.plot(at, [1e3 * step["latency_s"] for step in steps], lw=0.8, label="measured")
        time.plot(at, [_decided_ms(step, "predicted_step_s") for step in steps], label="predicted")
        time.axhline(tpot_slo_ms, color="C3", ls="--", lw=1, label="TPOT target")
        slack.plot(at, [_decided_ms(step, "slack_s") for step in steps], color="C2", label="slack")
        slack.axhline(0, color="0.6", lw=0.8)
        slack.set_xlabel("decode step")
    for row, label in enumerate(("rows", "step time, ms", "slack, ms")):
        axes[row][0].set_ylabel(label)
        axes[row][0].legend(loc="upper right", fontsize=8)
    axes[1][0].set_ylim(0, 4 * tpot_slo_ms)
    axes[2][0].set_ylim(-3 * tpot_slo_ms, 2 * tpot_slo_ms)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def busiest(steps: Sequence[dict[str, Any]], length: int) -> Sequence[dict[str, Any]]:
    """The stretch of ``length`` steps with the most rows."""
    if len(steps) <= length:
        return steps
    rows = [_total(step) for step in steps]
    load = sum(rows[:length])
    best, best_load = 0, load
    for start in range(1, len(steps) - length + 1):
        load += rows[start + length - 1] - rows[start - 1]
        if load > best_load:
            best, best_load = start, load
    return steps[best : best + length]


def _total(step: dict[str, Any]) -> int:
    return int(step["rows"] + step["parked_rows"])


def _decided_ms(step: dict[str, Any], name: str) -> float:
    decision = step["decision"]
    return 1e3 * decision[name] if decision is not None else float("nan")
