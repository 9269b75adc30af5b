"""Under torn, false, lost and old frames, and a controller that is killed, no promise is broken."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from governor_bench.faults.judge import Verdict
from governor_bench.faults.kinds import Faults, Kind
from governor_bench.faults.on_controller import ControllerAttacks
from governor_bench.faults.on_frames import attack_frames
from governor_bench.faults.schedule import FRAME_KINDS, MIXES
from governor_bench.faults.stage import run_stage
from governor_bench.faults.target import Target
from governor_bench.faults.workload import emulated_answers, emulated_requests
from governor_bench.servers import EmulatedEngine

pytestmark = pytest.mark.engine

SEED = 7


def test_every_promise_holds_under_attack(cramped: EmulatedEngine, cramped_folder: Path) -> None:
    specs = emulated_requests(24, SEED, 1.0)
    target = Target(
        "cramped",
        cramped,
        cramped_folder,
        specs,
        emulated_answers(specs),
        "laps_sd+adaptive_chunk+taper_plus+turbospec",
    )
    faults, verdict, rng = Faults(), Verdict(), Random(SEED)
    rows = [
        run_stage(mix, target, attack_frames(target, faults, rng, MIXES[mix], 1.0), faults, verdict)
        for mix in ("heavy", "lying")
    ]
    attacks = ControllerAttacks(target, faults, rng, 1)
    rows.append(run_stage("killed", target, attacks.killed, faults, verdict))
    verdict.judge_logs(target.logs[1:])  # of the controllers; the engine serves other tests as well
    assert not any(verdict.broken().values()), verdict.examples
    assert target.ended_by_themselves == []
    counts = faults.counts()
    assert all(counts[kind] > 0 for kind in FRAME_KINDS), counts
    assert counts[Kind.CONTROLLER_KILLED] == counts[Kind.CONTROLLER_RESTARTED] == 1
    assert counts[Kind.STALE_SOCKET] == 2
    assert all(row["held_steps"] > 0 for row in rows)
    assert sum(row["falls"].get("disconnected", 0) for row in rows) > 0
