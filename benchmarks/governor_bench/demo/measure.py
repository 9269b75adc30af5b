"""One turn of one policy: the load, what users got, what the controller did, what the host did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from governor_workloads.report import LoadReport, summarise
from governor_workloads.served import Served

from governor_bench.engine_metrics import GovernorCounters

DECODE = 0
MOST_HELD_UP = 0.03
"""A turn in which the emulated device stood still for more than this share of its time, because the
host was late with the next step, says nothing of a GPU. It is void."""


class HeldUp(msgspec.Struct, frozen=True):
    """How far the host held the emulated device up."""

    steps_share: float
    """Share of the device's steps that it got late."""
    time_share: float
    """Share of the device's time for which it stood still, waiting for the host."""

    @classmethod
    def of(cls, device: dict[str, float]) -> HeldUp:
        """
        Args:
            device: what the emulated device counted, by metric.
        """
        steps = device.get("governor_emulated_steps_total", 0.0)
        late = device.get("governor_emulated_host_limited_steps_total", 0.0)
        busy_s = device.get("governor_emulated_busy_seconds_total", 0.0)
        lost_s = device.get("governor_emulated_host_limited_seconds_total", 0.0)
        return cls(
            late / steps if steps else 0.0,
            lost_s / (busy_s + lost_s) if busy_s else 0.0,
        )

    @property
    def too_far(self) -> bool:
        return self.time_share > MOST_HELD_UP


class Turn(msgspec.Struct, frozen=True):
    """Everything known of one turn. Times are those of the GPU: the scale is taken off."""

    policy: str
    seed: int
    load: LoadReport
    chats: list[Served]
    branching_latencies_s: list[float]
    """Arrival to last token, of each branching request that finished."""
    held_up: HeldUp
    counters: dict[str, Any]
    steps: list[dict[str, Any]]
    """Step records of the controller, oldest first, by the engine's clock."""
    turnaround_us: dict[str, float]
    """Controller's receipt of a snapshot to its reply, p50 and p99."""
    took_s: float
    """Seconds of the wall clock."""
    machine_load: float
    """Processes that wanted a core, averaged over the last minute."""

    @classmethod
    def of(
        cls,
        policy: str,
        seed: int,
        served: Sequence[Served],
        device: dict[str, float],
        counters: GovernorCounters,
        steps: Sequence[dict[str, Any]],
        turnaround_us: dict[str, float],
        took_s: float,
        machine_load: float,
    ) -> Turn:
        return cls(
            policy,
            seed,
            summarise(served),
            [item for item in served if not item.branching],
            [
                item.last_token_s - item.sent_s
                for item in served
                if item.branching and item.finished and item.last_token_s is not None
            ],
            HeldUp.of(device),
            {
                "outcomes": counters.outcomes,
                "falls": {name: count for name, count in counters.falls.items() if count},
                "parked_row_steps": counters.parked_row_steps,
                "prefill_steps": sum(step["kind"] != DECODE for step in steps),
            },
            list(steps),
            turnaround_us,
            round(took_s, 1),
            round(machine_load, 1),
        )

    def in_short(self) -> dict[str, Any]:
        """Plain data for a report: without steps; a chat is its pace in ms per token."""
        return {
            **msgspec.to_builtins(msgspec.structs.replace(self, steps=[], chats=[])),
            "chats": " ".join(f"{1e3 * chat.tpot_s:.1f}" for chat in self.chats),
        }


class Summary(msgspec.Struct, frozen=True):
    """A policy over its turns that count. A figure over no turns is 0."""

    policy: str
    turns: int
    """Turns that count."""
    void_turns: int
    """Turns that do not count, because the host held the device up."""
    chats: int
    chats_kept: int
    """Chats that finished and kept their target."""
    chat_tpot_p50_ms: float
    chat_tpot_p99_ms: float
    branching_latency_p50_s: float
    goodput_tok_s: float
    """Median over the turns."""
    mean_width: float
    """Rows of a branching batch that advanced in a governed step."""
    step_error_pct: float | None
    """Median |predicted / measured - 1| of decided decode steps; None if nothing was predicted."""
    decision_p50_us: float
    decision_p99_us: float
    applied_share: float
    """Governed steps whose decision came in time."""
    parked_row_steps: int
    held_up: HeldUp
    """How far the host held the device up in the worst of the turns shown."""

    @property
    def kept_share(self) -> float:
        return self.chats_kept / self.chats if self.chats else 0.0


def summarise_policy(policy: str, turns: Sequence[Turn]) -> Summary:
    """Sum up the turns of one policy. Void ones are counted and otherwise left out, unless there
    are no others."""
    mine = [turn for turn in turns if turn.policy == policy]
    sound = [turn for turn in mine if not turn.held_up.too_far]
    shown = sound or mine
    chats = [chat for turn in shown for chat in turn.chats]
    paces_ms = [1e3 * chat.tpot_s for chat in chats if chat.finished]
    outcomes: dict[str, int] = {}
    for turn in shown:
        for name, count in turn.counters["outcomes"].items():
            outcomes[name] = outcomes.get(name, 0) + count
    governed = sum(outcomes.values())
    widths = [step["rows"] for turn in shown for step in turn.steps if is_governed(step)]
    return Summary(
        policy=policy,
        turns=len(sound),
        void_turns=len(mine) - len(sound),
        chats=len(chats),
        chats_kept=sum(chat.meets_targets for chat in chats),
        chat_tpot_p50_ms=_quantile(paces_ms, 0.5),
        chat_tpot_p99_ms=_quantile(paces_ms, 0.99),
        branching_latency_p50_s=_quantile(
            [seconds for turn in shown for seconds in turn.branching_latencies_s], 0.5
        ),
        goodput_tok_s=_quantile([turn.load.goodput_tok_s for turn in shown], 0.5),
        mean_width=float(np.mean(widths)) if widths else 0.0,
        step_error_pct=_step_error_pct(shown),
        decision_p50_us=_quantile([turn.turnaround_us["p50"] for turn in shown], 0.5),
        decision_p99_us=_quantile([turn.turnaround_us["p99"] for turn in shown], 0.5),
        applied_share=outcomes.get("applied", 0) / governed if governed else 0.0,
        parked_row_steps=sum(turn.counters["parked_row_steps"] for turn in shown),
        held_up=max(
            (turn.held_up for turn in shown),
            key=lambda held_up: held_up.time_share,
            default=HeldUp(0.0, 0.0),
        ),
    )


def is_governed(step: dict[str, Any]) -> bool:
    """A decode step at which there were rows to park or not."""
    decision = step["decision"]
    return bool(
        step["kind"] == DECODE
        and decision is not None
        and (decision["extra_rows"] or decision["parked_rows"])
    )


def _step_error_pct(turns: Sequence[Turn]) -> float | None:
    errors = [
        abs(step["decision"]["predicted_step_s"] / step["latency_s"] - 1)
        for turn in turns
        for step in turn.steps
        if step["kind"] == DECODE
        and step["decision"] is not None
        and step["decision"]["predicted_step_s"] > 0
        and step["latency_s"] > 0
    ]
    return 100 * _quantile(errors, 0.5) if errors else None


def _quantile(values: Sequence[float], share: float) -> float:
    return float(np.quantile(values, share)) if values else 0.0
