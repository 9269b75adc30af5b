"""``governor check upgrade``: users are served while everything around them is replaced.

Two engines, one of each scheduler loop, behind a router; one controller. First the two sides speak
every released contract in turn, then the controller is replaced, then the engines, one after the
other. Every output is compared with what the first engine said before it had a controller.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from governor_bench.engine_metrics import GovernorCounters, read_counters
from governor_bench.equality.check import compare
from governor_bench.equality.workload import mixed_requests
from governor_bench.load.result import RequestResult
from governor_bench.load.spec import RequestSpec
from governor_bench.processes import workspace
from governor_bench.servers import Controller, CpuEngine
from governor_bench.tiny_models import tiny_models
from governor_bench.upgrade.contracts import MINORS
from governor_bench.upgrade.fleet import Fleet
from governor_bench.upgrade.relay import Relay

POLICY = "random:0.5"
REQUESTS = 48
SEED = 3
STAGE_S = 6.0
PUBLISHED_AFTER_S = 1.2
RESUME_S = 30.0
STRICT = {"SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY": "1"}
NORMAL, OVERLAP = "normal", "overlap"

Stage = Callable[[str], None]


@dataclass
class _Rig:
    folder: Path
    model: Path
    front: str
    relay: Relay
    engines: dict[str, CpuEngine]
    fleet: Fleet
    specs: Sequence[RequestSpec]
    expected: dict[int, RequestResult]

    def engine(self, loop: str, started: int) -> CpuEngine:
        return CpuEngine(
            self.folder,
            self.model,
            overlap=loop == OVERLAP,
            governor={"ENDPOINT": self.front, "ENGINE_ID": loop},
            arguments=("--sleep-on-idle", "--enable-metrics"),
            environment=STRICT,
            log_name=f"{loop}-{started}.log",
        )

    def stop(self) -> None:
        for engine in self.engines.values():
            engine.stop()

    def counters(self) -> dict[str, GovernorCounters]:
        time.sleep(PUBLISHED_AFTER_S)
        return {name: read_counters(engine.url) for name, engine in self.engines.items()}

    def judge(self, name: str, results: Sequence[RequestResult]) -> dict[str, Any]:
        """What users got during one stage."""
        lost = [one for one in results if one.spec.abort_after_s is None and one.error]
        mismatched = [
            one
            for one in results
            if one not in lost and compare({0: self.expected[one.spec.index]}, {0: one})
        ]
        return {
            "stage": name,
            "requests": len(results),
            "lost_requests": len(lost),
            "token_mismatches": len(mismatched),
            "first_error": lost[0].error if lost else "",
        }


def check(*, quick: bool, on_stage: Stage) -> dict[str, Any]:
    """Replace everything, and count who noticed.

    Args:
        quick: the oldest and the newest contract only, and one restart of each kind.
        on_stage: told what comes next.

    Returns:
        ``requests``, ``lost_requests``, ``token_mismatches`` over all stages; ``silent_contracts``:
        released contracts under which an engine got no decision that it could apply, or a reply
        that it could not use; ``longest_resume_s``: from a controller's start to decisions for both
        engines; and the ``stages``.
    """
    with _rig(on_stage) as rig:
        minors = [MINORS[0], MINORS[-1]] if quick else list(MINORS)
        with Controller(rig.folder, policy=POLICY) as controller:
            controller.wait_ready()
            stages = [_contract(rig, minor, on_stage) for minor in minors]
            # Users of the next stage find this controller, and then another.
            stages.append(_replace_controller(rig, controller, signal.SIGTERM, on_stage))
        if not quick:
            with Controller(rig.folder, policy=POLICY) as controller:
                controller.wait_ready()
                stages.append(_replace_controller(rig, controller, signal.SIGKILL, on_stage))
        with Controller(rig.folder, policy=POLICY) as controller:
            controller.wait_ready()
            for loop in [NORMAL] if quick else [NORMAL, OVERLAP]:
                stages.append(_replace_engine(rig, loop, on_stage))
    return {
        **{key: sum(one[key] for one in stages) for key in ("requests", *PROMISES)},
        "silent_contracts": sum(one.get("silent", False) for one in stages),
        "longest_resume_s": max(one.get("resumed_s", 0.0) for one in stages),
        "stages": stages,
    }


PROMISES = ("lost_requests", "token_mismatches")


@contextmanager
def _rig(on_stage: Stage) -> Iterator[_Rig]:
    on_stage("starting two engines")
    # Under the overlap loop stock SGLang applies penalties late or not; arrivals are ours.
    specs = [
        replace(spec, arrival_s=0.0) for spec in mixed_requests(REQUESTS, SEED, penalties=False)
    ]
    with workspace() as folder, ExitStack() as stack:
        front = f"ipc://{folder}/front.sock"
        relay = stack.enter_context(Relay(front, f"ipc://{folder}/controller.sock"))
        rig = _Rig(folder, tiny_models().target, front, relay, {}, Fleet({}), specs, {})
        stack.callback(rig.stop)
        for loop in (NORMAL, OVERLAP):
            rig.engines[loop] = rig.engine(loop, 0)
        for engine in rig.engines.values():
            engine.wait_ready()
        on_stage("what is said without a controller")
        rig.fleet.put_in(NORMAL, rig.engines[NORMAL].url)
        rig.expected = {spec.index: rig.fleet.send(spec) for spec in specs}
        rig.fleet.put_in(OVERLAP, rig.engines[OVERLAP].url)
        yield rig


def _contract(rig: _Rig, minor: int, on_stage: Stage) -> dict[str, Any]:
    on_stage(f"contract 1.{minor}")
    rig.relay.speak(minor)
    before = rig.counters()
    with rig.fleet.serving(rig.specs) as results:
        time.sleep(STAGE_S)
    counted = {name: now.since(before[name]) for name, now in rig.counters().items()}
    applied = {name: one.outcomes.get("applied", 0) for name, one in counted.items()}
    invalid = {name: one.falls.get("invalid", 0) for name, one in counted.items()}
    return {
        **rig.judge(f"contract 1.{minor}", results),
        "applied": applied,
        "parked_row_steps": sum(one.parked_row_steps for one in counted.values()),
        "silent": not all(applied.values()) or any(invalid.values()),
    }


def _replace_controller(
    rig: _Rig, controller: Controller, number: signal.Signals, on_stage: Stage
) -> dict[str, Any]:
    """The controller goes in mid-run, and another comes to the same place."""
    name = f"controller replaced after {number.name}"
    on_stage(name)
    with rig.fleet.serving(rig.specs) as results:
        time.sleep(STAGE_S / 2)
        controller.signal(number)
        controller.wait_gone()
        with Controller(rig.folder, policy=POLICY, log_name="successor.log") as successor:
            successor.wait_ready()
            started_s = time.monotonic()
            while not _decides(successor, len(rig.engines)):
                if time.monotonic() - started_s > RESUME_S:
                    break
                time.sleep(0.05)
            resumed_s = time.monotonic() - started_s
            time.sleep(STAGE_S / 2)
    return {**rig.judge(name, results), "resumed_s": round(resumed_s, 2)}


def _decides(controller: Controller, engines: int) -> bool:
    known = controller.status()["engines"]
    return len(known) == engines and all(one["outcomes"].get("applied") for one in known)


def _replace_engine(rig: _Rig, loop: str, on_stage: Stage) -> dict[str, Any]:
    """One engine is taken out, ended, started again under the same name, and put back in."""
    name = f"{loop} engine replaced"
    on_stage(name)
    with rig.fleet.serving(rig.specs) as results:
        time.sleep(STAGE_S / 2)
        rig.fleet.take_out(loop)
        rig.engines[loop].stop()
        rig.engines[loop] = rig.engine(loop, 1)
        rig.engines[loop].wait_ready()
        rig.fleet.put_in(loop, rig.engines[loop].url)
        time.sleep(STAGE_S)
    time.sleep(PUBLISHED_AFTER_S)
    applied = read_counters(rig.engines[loop].url).outcomes.get("applied", 0)
    return {**rig.judge(name, results), "applied": {loop: applied}, "silent": not applied}
