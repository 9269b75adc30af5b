"""Late and missing decisions in virtual time, by the real fallback ladder."""

from __future__ import annotations

from typing import Any

import pytest
from governor_sim.simulate import SimConfig, SimResult
from governor_sim.timing import DecisionLatency
from sim_builders import request, run, workload

from sglang_patch.config import EngineConfig
from sglang_patch.governor import Tally

# Steps of this load take about 11 ms.
WIDE = workload(request(0, 50, 60, branches=6), request(1, 50, 60, branches=6))


def late_by(median_s: float, **settings: Any) -> SimResult:
    latency = DecisionLatency(median_s=median_s, spread=0.0)
    return run(WIDE, "off", SimConfig(latency=latency, **settings))


def tally_of(result: SimResult) -> Tally:
    assert result.tally is not None
    return result.tally


@pytest.mark.parametrize("overlap", [True, False])
def test_decisions_in_time_are_applied(overlap: bool) -> None:
    tally = tally_of(late_by(0.4e-3, overlap=overlap))
    assert tally.outcomes["applied"] > 0.9 * tally.governed_steps > 0
    assert tally.outcomes["late"] == 0


@pytest.mark.parametrize("overlap", [True, False])
def test_late_decisions_leave_standing_orders(overlap: bool) -> None:
    tally = tally_of(late_by(0.03, overlap=overlap))
    assert tally.outcomes["applied"] == 0
    assert tally.outcomes["late"] > 0.9 * tally.governed_steps
    assert tally.falls["late"] == tally.outcomes["late"]
    assert tally.parked_row_steps > 0


@pytest.mark.parametrize("overlap", [True, False])
def test_decisions_later_than_their_lease_leave_stock(overlap: bool) -> None:
    result = late_by(0.2, overlap=overlap)
    tally = tally_of(result)
    assert tally.outcomes["applied"] == tally.outcomes["late"] == 0
    assert tally.parked_row_steps == 0
    stock = run(WIDE, None, SimConfig(overlap=overlap))
    if overlap:  # the normal loop waits for them in vain
        assert result.served == stock.served
    assert tally.outcomes["stale"] > 0


def test_the_lease_is_what_decides() -> None:
    assert tally_of(late_by(0.2, lease_steps=64)).outcomes["late"] > 0


def test_the_normal_loop_waits_for_a_decision_and_not_longer_than_it_may() -> None:
    # Planning follows a step's end at once, so what is due just after it is waited for.
    just_late_s = 0.0118
    waits = EngineConfig(max_wait_ms=50.0, max_wait_share=0.5)
    never = EngineConfig(max_wait_ms=0.0)
    waiting = tally_of(late_by(just_late_s, overlap=False, engine=waits))
    hasty = tally_of(late_by(just_late_s, overlap=False, engine=never))
    assert waiting.outcomes["applied"] > hasty.outcomes["applied"]


def test_no_row_sits_out_for_longer_than_it_may() -> None:
    load = workload(request(0, 20, 400), request(1, 20, 400, branches=3, tpot_slo_s=10.0))
    bounded = run(load, "off", SimConfig(engine=EngineConfig(max_parked_steps=4)))
    unbounded = run(load, "off", SimConfig(engine=EngineConfig(max_parked_steps=4096)))
    assert tally_of(bounded).parked_row_steps < tally_of(unbounded).parked_row_steps
    assert (bounded.steps.rows > 2).sum() > 100
