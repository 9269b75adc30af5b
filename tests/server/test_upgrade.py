"""Peers of different versions, where one side knows an earlier contract."""

from __future__ import annotations

import pytest
from engines import GovernedEngine, Results, assert_sound_at_idle, run_counted, until
from governor_bench.equality.check import compare
from governor_bench.processes import workspace
from governor_bench.servers import Controller
from governor_bench.upgrade.relay import Relay

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("minor", [0, 4, 6])
def test_peers_of_an_earlier_contract_understand_each_other(
    normal_engine: GovernedEngine, stock: Results, minor: int
) -> None:
    with workspace() as folder, Controller(folder, policy="random:0.5") as controller:
        controller.wait_ready()
        with Relay(normal_engine.endpoint, controller.endpoint) as relay:
            relay.speak(minor)
            until(lambda: len(controller.status()["engines"]) > 0, "the engine did not connect")
            governed, counted = run_counted(normal_engine.url, penalties=True)
        (engine,) = controller.status()["engines"]
    assert relay.frames > 0
    assert engine["knobs"] == ["branches", "prefill", "retract"][: 1 + (minor > 4) + (minor > 5)]
    assert compare(stock, governed) == []
    assert counted.outcomes["applied"] > 0
    assert counted.parked_row_steps > 0
    assert counted.falls["invalid"] == 0
    assert_sound_at_idle(normal_engine.url)
