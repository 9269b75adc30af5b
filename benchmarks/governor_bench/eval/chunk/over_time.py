"""One long burst as it passes: what each request got, and what each step prefilled."""

from __future__ import annotations

from typing import Any

from governor_bench.eval.chunk.plan import ADAPTIVE, DEFAULT, Place, setting_of
from governor_bench.eval.chunk.setting import MIXED, PREFILL_FIRST, Setting, workload_for
from governor_bench.eval.chunk.shapes import LONG_BURSTS, is_long
from governor_bench.eval.chunk.simulated import simulated

SHOWN = (
    (DEFAULT, PREFILL_FIRST),
    (ADAPTIVE, PREFILL_FIRST),
    (ADAPTIVE, MIXED),
)
SHARE = 0.6
BEFORE_S, AFTER_S = 10.0, 40.0


def settings(seed: int, *, quick: bool) -> dict[str, Setting]:
    """What is shown, by name."""
    return {
        contender.name + (f", {schedule}" if contender is ADAPTIVE else ""): setting_of(
            Place(LONG_BURSTS.name, schedule, SHARE, 1.0),
            contender,
            seed,
            shortened=2.0 if quick else 1.0,
        )
        for contender, schedule in SHOWN
    }


def trace(setting: Setting) -> dict[str, Any]:
    """Requests and steps around the first burst that is judged, in seconds after it came.

    ``requests``: [sent, TTFT in s (None: no token), TPOT in ms, 1 for a long prompt].
    ``steps``: [end, prompt tokens, rows that decoded, duration in ms].
    """
    workload = workload_for(setting)
    result = simulated(setting, workload)
    long = [item for item in workload.requests if is_long(item.prompt_tokens)]
    burst_s = next(
        item.arrival_s for item in long if item.arrival_s - BEFORE_S > setting.timing.warm_up_s
    )
    indexes = {item.index for item in long}

    def shown(at_s: float) -> bool:
        return -BEFORE_S <= at_s - burst_s <= AFTER_S

    steps = result.steps
    columns = [
        column.tolist()
        for column in (steps.end_s, steps.prefill_tokens, steps.decoding, steps.seconds)
    ]
    return {
        "requests": [
            [
                round(item.sent_s - burst_s, 3),
                None if item.ttft_s is None else round(item.ttft_s, 3),
                round(1e3 * item.tpot_s, 2),
                int(item.index in indexes),
            ]
            for item in sorted(result.served, key=lambda item: item.sent_s)
            if shown(item.sent_s)
        ],
        "steps": [
            [round(end_s - burst_s, 3), int(tokens), int(rows), round(1e3 * seconds, 1)]
            for end_s, tokens, rows, seconds in zip(*columns, strict=True)
            if shown(end_s)
        ],
    }
