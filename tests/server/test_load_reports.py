"""Gateways and autoscalers read how many requests an engine runs: parked ones are among them."""

from __future__ import annotations

import pytest
from engines import GovernedEngine, assert_sound_at_idle
from load_reports import BRANCHES, once_full, running, running_gauge, while_parked

pytestmark = pytest.mark.engine


def test_a_parked_row_counts_as_running(normal_engine: GovernedEngine) -> None:
    url = normal_engine.url
    loads: list[float] = []
    gauges: list[float] = []

    def observe() -> None:
        loads.append(running(url)[0])
        gauges.append(running_gauge(url))

    heard, answers = while_parked(url, normal_engine.endpoint, observe)
    assert len(answers) == BRANCHES
    assert max(step.parked_rows for step in heard.decode_steps) == BRANCHES - 1
    assert set(once_full(loads)) == {BRANCHES}
    assert set(once_full(gauges)) == {BRANCHES}
    assert_sound_at_idle(url)
    assert running(url)[0] == running_gauge(url) == 0
