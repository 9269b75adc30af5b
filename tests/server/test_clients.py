"""Clients that know nothing of Governor."""

from __future__ import annotations

from pathlib import Path

import pytest
from engines import GovernedEngine, assert_sound_at_idle
from governor_bench.clients import run_client

pytestmark = pytest.mark.engine


def test_sglangs_own_benchmark_client_completes_every_request(
    normal_engine: GovernedEngine, model: Path, tmp_path: Path
) -> None:
    with normal_engine.controller("taper"):
        report = run_client(normal_engine.url, model, tmp_path, "sglang", 8)
    assert report["completed"] == 8
    assert report["output_throughput"] > 0
    assert_sound_at_idle(normal_engine.url)
