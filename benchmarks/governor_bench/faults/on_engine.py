"""Attacks in which the engine is what is killed, doubled, or robbed of its controller."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from functools import partial
from random import Random

import psutil

from governor_bench.faults.judge import Verdict
from governor_bench.faults.kinds import Faults, Kind
from governor_bench.faults.schedule import APART_S
from governor_bench.faults.target import FaultBenchError, Load, Target, wait_until
from governor_bench.processes import get_json
from governor_bench.servers import Controller, CpuEngine, EmulatedEngine

DECIDED_WITHIN_S = 30.0
BACK_WITHIN_S = 60.0

StartEngine = Callable[[str], CpuEngine | EmulatedEngine]
"""Starts an engine of the same identity; its argument names the log."""


def kill_engine(target: Target, faults: Faults, rng: Random, start: StartEngine, load: Load) -> int:
    """Kill the engine while it waits for a decision, and start it again under the same name.

    Returns:
        How many requests it did not live to answer.
    """
    with target.controller() as controller:
        target.wait_connected(controller)
        lost = Verdict()  # of what it will not live to answer
        with Load(target, lost):
            time.sleep(rng.uniform(*APART_S) + 1.0)
            controller.signal(signal.SIGSTOP)  # so that it has asked, and nobody answers
            try:
                time.sleep(0.05)
                target.end(target.engine, signal.SIGKILL)
            finally:
                controller.signal(signal.SIGCONT)
        faults.add(Kind.ENGINE_KILLED)
        before = _incarnations(controller)
        target.engine = start(f"engine-after-{len(target.logs)}.log")
        target.logs.append(target.engine.log)
        target.engine.wait_ready()
        wait_until(
            lambda: bool(_incarnations(controller) - before),
            "the engine that was started again did not find its controller",
            BACK_WITHIN_S,
        )
        with load:
            wait_until(
                lambda: target.counters().outcomes.get("applied", 0) > 0,
                "no decision was applied after the engine was started again",
                DECIDED_WITHIN_S,
            )
    return lost.lost_requests


def double_identity(
    target: Target, other: Target, faults: Faults, times: int, loads: tuple[Load, Load]
) -> None:
    """Two engines say that they are the same one; whoever comes first keeps the name.

    Raises:
        FaultBenchError: the name changed hands while both were alive, or nobody was refused.
    """

    def refused() -> int:
        return sum(one.counters().falls.get("refused", 0) for one in (target, other))

    with target.controller() as controller:
        target.wait_connected(controller)
        first = _incarnations(controller)
        with loads[0], loads[1]:
            for _ in range(times):
                wait_until(
                    partial(_has_grown, refused, refused()),
                    "no step of an engine whose name another has was counted as refused",
                    BACK_WITHIN_S,
                )
                if _incarnations(controller) != first:
                    raise FaultBenchError("an engine took the name of one that is alive")
                faults.add(Kind.SAME_IDENTITY)


def kill_embedded(
    target: Target, faults: Faults, rng: Random, times: int, controller_url: str, load: Load
) -> None:
    """Kill the controller that an engine has started itself, again and again."""
    with load:
        for _ in range(times):
            wait_until(
                lambda: target.counters().connected,
                "the embedded controller did not come back",
                BACK_WITHIN_S,
            )
            time.sleep(rng.uniform(*APART_S))
            before = get_json(f"{controller_url}/v1/status")["controller_id"]
            _embedded(target).kill()
            faults.add(Kind.EMBEDDED_CONTROLLER_KILLED)
            wait_until(
                partial(_is_another, controller_url, before),
                "the embedded controller was not started again",
                BACK_WITHIN_S,
            )


def _embedded(target: Target) -> psutil.Process:
    for child in psutil.Process(target.engine.pid).children(recursive=True):
        if "controller_service" in child.cmdline():
            return child
    raise LookupError("the engine has no embedded controller")


def _is_another(url: str, before: str) -> bool:
    try:
        return bool(get_json(f"{url}/v1/status", timeout_s=1.0)["controller_id"] != before)
    except OSError:
        return False


def _has_grown(count: Callable[[], int], before: int) -> bool:
    return count() > before


def _incarnations(controller: Controller) -> set[str]:
    return {str(engine["incarnation"]) for engine in controller.status()["engines"]}
