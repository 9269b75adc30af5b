"""The master test: governed greedy output is token-identical to stock output.

72 mixed requests (samples, tagged groups, aborts in flight, penalties, stop tokens, staggered
arrivals) against a real server, with SGLang's strict memory checks after every step. A leak at
idle ends the engine, so an engine that still answers has passed that check, too.
"""

from __future__ import annotations

import copy
import urllib.request

import msgspec
import pytest
from engines import (
    EmbeddedEngine,
    GovernedEngine,
    Results,
    assert_sound_at_idle,
    run_counted,
    until,
)
from governor_bench.equality.check import compare
from governor_bench.processes import get_json

pytestmark = pytest.mark.engine

POLICIES = ["random:0.5", "taper"]


@pytest.mark.parametrize("policy", POLICIES)
def test_normal_loop(normal_engine: GovernedEngine, stock: Results, policy: str) -> None:
    with normal_engine.controller(policy):
        governed, counted = run_counted(normal_engine.url, penalties=True)
    assert compare(stock, governed) == []
    assert counted.parked_row_steps > 0
    assert counted.outcomes["applied"] > 0
    assert_sound_at_idle(normal_engine.url)


@pytest.mark.parametrize("policy", POLICIES)
def test_overlap_loop(
    embedded_engine: EmbeddedEngine, stock_without_penalties: Results, policy: str
) -> None:
    request = urllib.request.Request(
        f"{embedded_engine.controller_url}/v1/policy",
        data=msgspec.json.encode({"policy": policy}),
        method="PUT",
    )
    with urllib.request.urlopen(request, timeout=10) as reply:
        assert reply.status == 200
    until(
        lambda: len(get_json(f"{embedded_engine.controller_url}/v1/status")["engines"]) == 1,
        "the engine did not find its own controller",
    )
    governed, counted = run_counted(embedded_engine.url, penalties=False)
    assert compare(stock_without_penalties, governed) == []
    assert counted.parked_row_steps > 0
    assert counted.outcomes["applied"] > 0
    assert_sound_at_idle(embedded_engine.url)


def test_the_comparison_itself_can_fail(stock: Results) -> None:
    """A check that finds nothing must be able to find something."""
    changed = dict(stock)
    index, result = next((i, r) for i, r in stock.items() if r.branches[0].output_ids)
    branch = result.branches[0]
    ids = [*branch.output_ids[:-1], branch.output_ids[-1] + 1]
    changed[index] = copy.deepcopy(result)
    changed[index].branches[0].output_ids = ids
    assert [item.index for item in compare(stock, changed)] == [index]
