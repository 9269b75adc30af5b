"""One kind of attack on one engine, from the first request to the last page of memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from governor_bench.faults.judge import Verdict
from governor_bench.faults.kinds import Faults
from governor_bench.faults.target import FaultBenchError, Load, Target

Attack = Callable[[Load], None]
"""Does its faults; while it does them it keeps the load entered, so that requests are served."""


def run_stage(
    name: str, target: Target, attack: Attack, faults: Faults, verdict: Verdict
) -> dict[str, Any]:
    """Serve under attack, and judge.

    Returns:
        ``stage``, ``engine``, ``faults`` by kind, and what they did to the engine: ``outcomes``,
        ``falls``, ``governed_steps``, ``held_steps``, ``disturbed_steps``, ``longest_own_ms``,
        ``longest_carried_out_ms``, ``longest_wall_ms`` (since the engine's start), and ``runs`` of
        the requests.

    Raises:
        FaultBenchError: the bench itself did not get through.
    """
    engine, before, counts = target.engine, target.counters(), faults.counts()
    load = Load(target, verdict)
    attack(load)
    if not target.engine.is_running():
        raise FaultBenchError(f"{name}: the engine ended:\n{target.engine.log_tail()}")
    target.wait_idle()
    after = target.counters()
    if target.engine is engine:  # one that was started meanwhile counts from its start
        after = after.since(before)
    leaked = target.used_pages()
    verdict.leaked_pages += leaked
    verdict.engine_stalls += after.stalled_steps
    target.flush()
    return {
        "stage": name,
        "engine": target.name,
        "runs": load.runs,
        "faults": {
            kind: count - counts[kind]
            for kind, count in faults.counts().items()
            if count > counts[kind]
        },
        "governed_steps": after.governed_steps,
        "outcomes": {name: count for name, count in after.outcomes.items() if count},
        "falls": {name: count for name, count in after.falls.items() if count},
        "held_steps": after.held_steps,
        "stalled_steps": after.stalled_steps,
        "disturbed_steps": after.disturbed_steps,
        "longest_own_ms": round(after.longest_own_s * 1e3, 3),
        "longest_carried_out_ms": round(after.longest_carried_out_s * 1e3, 3),
        "longest_wall_ms": round(after.longest_wall_s * 1e3, 3),
    }
