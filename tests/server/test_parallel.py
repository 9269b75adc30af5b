"""Ranks must never disagree: two tensor-parallel ranks, and two replicas on one controller.

SGLang sends a request to the replica that says that it has least to do.
"""

from __future__ import annotations

import os

import pytest
from engines import GovernedEngine, Results, assert_sound_at_idle, run_counted
from generating import generate, prompts
from governor_bench.equality.check import compare
from load_reports import BRANCHES, once_full, running, running_gauge, while_parked

pytestmark = pytest.mark.engine


def test_two_tensor_parallel_ranks(
    two_ranks: GovernedEngine, stock_without_penalties: Results
) -> None:
    with two_ranks.controller("laps_sd+adaptive_chunk+random:0.5"):
        governed, counted = run_counted(two_ranks.url, penalties=False)
    assert compare(stock_without_penalties, governed) == []
    assert counted.parked_row_steps > 0
    assert_sound_at_idle(two_ranks.url)


def test_two_replicas_on_one_controller(
    two_replicas: GovernedEngine, stock_without_penalties: Results
) -> None:
    with two_replicas.controller("random:0.5") as controller:
        governed, counted = run_counted(two_replicas.url, penalties=False)
        engines = controller.status()["engines"]
    assert compare(stock_without_penalties, governed) == []
    assert counted.parked_row_steps > 0
    assert sorted(engine["dp_rank"] for engine in engines) == [0, 1]
    assert all(engine["outcomes"]["applied"] > 0 for engine in engines)
    # Named by what survives a restart, and found where clients find them.
    port = two_replicas.url.rpartition(":")[2]
    names = sorted(engine["engine_id"] for engine in engines)
    assert names == [f"{os.uname().nodename}-{port}-dp{rank}" for rank in (0, 1)]
    assert {engine["url"] for engine in engines} == {two_replicas.url}
    assert_sound_at_idle(two_replicas.url)


def test_requests_go_round_a_replica_whose_branches_are_parked(
    two_replicas: GovernedEngine,
) -> None:
    """A parked branch is work that the replica still has to do."""
    url = two_replicas.url
    loads: list[float] = []
    gauges: list[float] = []
    went_to: list[int] = []

    def observe() -> None:
        by_replica = running(url)
        loads.append(by_replica[0])
        if by_replica[1] == 0:
            gauges.append(running_gauge(url))
        if by_replica[0] == BRANCHES and len(went_to) < 5:
            answer = generate(url, prompts()[len(went_to) + 1], 2)
            went_to.append(answer["meta_info"]["dp_rank"])

    heard, _answers = while_parked(url, two_replicas.endpoint, observe, routed_dp_rank=0)
    assert max(step.parked_rows for step in heard.decode_steps) == BRANCHES - 1
    assert set(once_full(loads)) == {BRANCHES}
    assert max(gauges) == BRANCHES
    assert went_to == [1] * 5
    assert_sound_at_idle(url)
