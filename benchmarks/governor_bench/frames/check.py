"""``governor check frames``: both sides, and what is promised of them."""

from __future__ import annotations

from typing import Any

import msgspec
from rich.progress import Progress

from governor_bench.frames import controller_side, engine_side
from governor_bench.processes import workspace

MOST_GROWTH_MIB = 16.0
"""Of a process's memory, over all frames: 16 bytes of each of a million."""
WARM_UP_SHARE = 0.05
LEAST_WARM_UP = 2000


def check(count: int, seed: int, *, progress: Progress) -> dict[str, Any]:
    """Send ``count`` malformed frames to a controller, and as many to an engine's end.

    Returns:
        ``crashes``, ``accepted_malformed``, ``growth_mib`` (of the process that grew most),
        ``late`` and ``unanswered`` (of ``asked`` questions of a healthy engine), ``broken`` (the
        promises that do not hold), and the figures of each side.
    """
    warm_up = max(LEAST_WARM_UP, round(WARM_UP_SHARE * count))
    with workspace() as folder:
        controller = controller_side.attack(count, warm_up, seed, folder, progress)
        engine = engine_side.attack(count, warm_up, seed + 1, folder, progress)
    growth = {
        "controller": controller.rss_after_mib - controller.rss_before_mib,
        "engine": engine.rss_after_mib - engine.rss_before_mib,
    }
    healthy = controller.healthy
    return {
        "frames": count,
        "crashes": controller.crashed + engine.crashed,
        "accepted_malformed": controller.accepted + engine.accepted,
        "growth_mib": round(max(growth.values()), 1),
        "asked": healthy.asked,
        "late": healthy.late,
        "unanswered": healthy.unanswered,
        "broken": broken(controller, engine, growth),
        "controller": msgspec.to_builtins(controller),
        "engine": msgspec.to_builtins(engine),
    }


def broken(
    controller: controller_side.ControllerRun,
    engine: engine_side.EngineRun,
    growth_mib: dict[str, float],
) -> list[str]:
    """Promises that do not hold, in words."""
    healthy = controller.healthy
    kept = {
        "the controller lives": not controller.crashed,
        "the engine's end lives": not engine.crashed,
        "the controller refuses what is malformed": not controller.accepted,
        "the engine's end refuses what is malformed": not engine.accepted,
        "every frame was read": not controller.throttled,
        "the healthy engine is answered": healthy.asked > 0 and not healthy.unanswered,
        "the attacked engine is governed again": engine.recovered and engine.cut > 0,
    }
    kept |= {
        f"the memory of the {side} stays": grown <= MOST_GROWTH_MIB
        for side, grown in growth_mib.items()
    }
    return [promise for promise, holds in kept.items() if not holds]
