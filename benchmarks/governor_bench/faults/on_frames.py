"""Attacks on the wire."""

from __future__ import annotations

import time
from collections.abc import Mapping
from random import Random

from governor_bench.faults.kinds import Faults, Kind
from governor_bench.faults.proxy import Proxy
from governor_bench.faults.stage import Attack
from governor_bench.faults.target import Load, Target


def attack_frames(
    target: Target, faults: Faults, rng: Random, mix: Mapping[Kind, float], seconds: float
) -> Attack:
    """Every frame in either direction meets with a fault by the chances of ``mix``."""

    def attack(load: Load) -> None:
        with (
            target.controller(behind=True) as controller,
            Proxy(target.endpoint, controller.endpoint, faults, rng, mix),
        ):
            target.wait_connected(controller)
            with load:
                time.sleep(seconds)

    return attack
