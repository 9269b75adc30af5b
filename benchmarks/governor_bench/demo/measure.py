"""One turn of one policy: the load, what users got, what the controller did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from governor_workloads.report import LoadReport

from governor_bench.engine_metrics import GovernorCounters

DECODE = 0


class Turn(msgspec.Struct, frozen=True):
    """Everything known of one turn."""

    policy: str
    seed: int
    load: LoadReport
    counters: dict[str, Any]
    steps: list[dict[str, Any]]
    """Step records of the controller, oldest first."""
    turnaround_us: dict[str, float]
    """Controller's receipt of a snapshot to its reply, p50 and p99."""

    @classmethod
    def of(
        cls,
        policy: str,
        seed: int,
        load: LoadReport,
        counters: GovernorCounters,
        steps: Sequence[dict[str, Any]],
        turnaround_us: dict[str, float],
    ) -> Turn:
        return cls(
            policy,
            seed,
            load,
            {
                "outcomes": counters.outcomes,
                "falls": {name: count for name, count in counters.falls.items() if count},
                "parked_row_steps": counters.parked_row_steps,
            },
            list(steps),
            turnaround_us,
        )


class Summary(msgspec.Struct, frozen=True):
    """A policy over all its turns: medians, with the spread of what varies."""

    policy: str
    goodput_tok_s: float
    goodput_range: tuple[float, float]
    attainment: float
    """Over the requests of all turns."""
    serial_attainment: float
    victim_tpot_p50_ms: float
    victim_tpot_p95_ms: float
    """TPOT of chats that share steps with branches."""
    branching_latency_p50_s: float
    branch_tokens_per_s: float
    mean_width: float
    """Rows of a branching batch that advanced in a governed step."""
    step_error_pct: float | None
    """Median |predicted / measured - 1| of decided decode steps; None if nothing was predicted."""
    decision_p50_us: float
    decision_p99_us: float
    governed_steps: int
    applied_share: float
    falls: dict[str, int]
    parked_row_steps: int


def summarise_policy(policy: str, turns: Sequence[Turn]) -> Summary:
    """Sum up the turns of one policy."""
    goodput = [turn.load.goodput_tok_s for turn in turns]
    requests = [turn.load.requests for turn in turns]
    outcomes: dict[str, int] = {}
    falls: dict[str, int] = {}
    for turn in turns:
        for name, count in turn.counters["outcomes"].items():
            outcomes[name] = outcomes.get(name, 0) + count
        for name, count in turn.counters["falls"].items():
            falls[name] = falls.get(name, 0) + count
    governed = sum(outcomes.values())
    widths = [step["rows"] for turn in turns for step in turn.steps if is_governed(step)]
    return Summary(
        policy=policy,
        goodput_tok_s=_median(goodput),
        goodput_range=(min(goodput), max(goodput)),
        attainment=float(np.average([turn.load.attainment for turn in turns], weights=requests)),
        serial_attainment=_median([turn.load.serial_attainment for turn in turns]),
        victim_tpot_p50_ms=1e3 * _median([turn.load.victim_tpot_p50_s for turn in turns]),
        victim_tpot_p95_ms=1e3 * _median([turn.load.victim_tpot_p95_s for turn in turns]),
        branching_latency_p50_s=_median([turn.load.branching_latency_p50_s for turn in turns]),
        branch_tokens_per_s=_median([turn.load.branch_tokens_per_s for turn in turns]),
        mean_width=float(np.mean(widths)) if widths else 0.0,
        step_error_pct=_step_error_pct(turns),
        decision_p50_us=_median([turn.turnaround_us["p50"] for turn in turns]),
        decision_p99_us=_median([turn.turnaround_us["p99"] for turn in turns]),
        governed_steps=governed,
        applied_share=outcomes.get("applied", 0) / governed if governed else 0.0,
        falls=falls,
        parked_row_steps=sum(turn.counters["parked_row_steps"] for turn in turns),
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
    return 100 * _median(errors) if errors else None


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else 0.0
