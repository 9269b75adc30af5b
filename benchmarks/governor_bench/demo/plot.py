"""One turn of each policy: what every chat got, and the steps behind it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from governor_bench.demo.measure import DECODE, Turn
from governor_bench.demo.table import NAMES


def plot_turns(turns: Sequence[Turn], scale: float, promised_ms: float, path: Path) -> None:
    """Draw one turn of each policy over the same arrivals, one column a policy.

    Args:
        scale: of the engine's clock, by which step times are divided.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        3, len(turns), figsize=(5 * len(turns), 8), sharey="row", squeeze=False
    )
    for column, turn in enumerate(turns):
        chats, rows, time = (axes[row][column] for row in range(3))
        chats.set_title(f"{NAMES.get(turn.policy, turn.policy)} ({turn.policy})")
        for kept, colour, label in ((True, "C2", "kept"), (False, "C3", "missed")):
            shown = [chat for chat in turn.chats if chat.finished and chat.meets_targets == kept]
            chats.scatter(
                [chat.sent_s for chat in shown],
                [1e3 * chat.tpot_s for chat in shown],
                color=colour,
                s=18,
                label=f"target {label}: {len(shown)}",
            )
        chats.axhline(promised_ms, color="C3", ls="--", lw=1)
        chats.set_ylim(0, 2.5 * promised_ms)
        chats.set_xlim(left=0)
        chats.set_xlabel("a chat's arrival, s")
        chats.legend(loc="upper right", fontsize=8)
        steps = [step for step in turn.steps if step["kind"] == DECODE]
        at = range(len(steps))
        rows.fill_between(
            at,
            [int(step["rows"] + step["parked_rows"]) for step in steps],
            step="mid",
            color="0.85",
            label="rows in the batch",
        )
        rows.step(at, [step["rows"] for step in steps], where="mid", label="rows that advanced")
        rows.sharex(time)
        measured_ms = [1e3 * step["latency_s"] / scale for step in steps]
        time.plot(at, measured_ms, lw=0.8, label="measured")
        time.plot(at, [_predicted_ms(step) / scale for step in steps], lw=0.8, label="predicted")
        time.axhline(promised_ms, color="C3", ls="--", lw=1, label="target per token")
        time.set_ylim(0, 3 * promised_ms)
        time.set_xlabel("decode step")
    for row, label in enumerate(("chat, ms per token", "rows", "step time, ms")):
        axes[row][0].set_ylabel(label)
    for row in (1, 2):
        axes[row][0].legend(loc="upper right", fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _predicted_ms(step: dict[str, Any]) -> float:
    decision = step["decision"]
    return 1e3 * decision["predicted_step_s"] if decision is not None else float("nan")
