"""Ranks must never disagree: two tensor-parallel ranks, and two replicas on one controller."""

from __future__ import annotations

import os

import pytest
from engines import GovernedEngine, Results, assert_sound_at_idle, run_counted
from governor_bench.equality.check import compare

pytestmark = pytest.mark.engine


def test_two_tensor_parallel_ranks(
    two_ranks: GovernedEngine, stock_without_penalties: Results
) -> None:
    with two_ranks.controller("random:0.5"):
        governed, counted = run_counted(two_ranks.url, penalties=False)
    assert compare(stock_without_penalties, governed) == []
    assert counted.parked_row_steps > 0
    assert_sound_at_idle(two_ranks.url)


def test_two_replicas_on_one_controller(two_replicas: GovernedEngine, stock: Results) -> None:
    with two_replicas.controller("random:0.5") as controller:
        governed, counted = run_counted(two_replicas.url, penalties=True)
        engines = controller.status()["engines"]
    assert compare(stock, governed) == []
    assert counted.parked_row_steps > 0
    assert sorted(engine["dp_rank"] for engine in engines) == [0, 1]
    assert all(engine["outcomes"]["applied"] > 0 for engine in engines)
    # Named by what survives a restart, and found where clients find them.
    port = two_replicas.url.rpartition(":")[2]
    names = sorted(engine["engine_id"] for engine in engines)
    assert names == [f"{os.uname().nodename}-{port}-dp{rank}" for rank in (0, 1)]
    assert {engine["url"] for engine in engines} == {two_replicas.url}
    assert_sound_at_idle(two_replicas.url)
