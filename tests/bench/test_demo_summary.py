"""What the demo says of a policy's turns, on turns made by hand."""

from __future__ import annotations

import pytest
from governor_bench.demo.measure import Turn, summarise_policy
from governor_bench.demo.plot import busiest, plot_steps
from governor_bench.demo.run import target_ms
from governor_bench.engine_metrics import GovernorCounters
from governor_workloads.report import summarise
from governor_workloads.served import Served


def step(number, rows, parked, predicted=0.02):
    decision = {
        "extra_rows": rows - 1,
        "parked_rows": parked,
        "predicted_step_s": predicted,
        "slack_s": 0.01,
    }
    return {
        "step": number,
        "kind": 0,
        "rows": rows,
        "parked_rows": parked,
        "latency_s": 0.025,
        "decision": decision,
    }


def test_a_policy_is_summed_up_over_its_turns(tmp_path):
    counters = GovernorCounters({"applied": 9, "late": 1}, {"late": 1, "stale": 0}, 7, 0, 0, True)
    load = summarise([Served(0, 1, None, None, 0.0, 0.0, 10.0, 101)])
    steps = [step(number, 4 + number % 3, 1) for number in range(50)]
    turn = Turn.of("taper", 1, load, counters, steps, {"p50": 100.0, "p99": 300.0})
    summary = summarise_policy("taper", [turn, turn])
    assert summary.applied_share == pytest.approx(0.9)
    assert summary.falls == {"late": 2}
    assert summary.parked_row_steps == 14
    assert summary.step_error_pct == pytest.approx(20.0)
    assert summary.mean_width == pytest.approx(5.0, abs=0.1)
    plot_steps([turn], 40.0, tmp_path / "steps.png")
    assert (tmp_path / "steps.png").stat().st_size > 1000


def test_the_busiest_stretch_is_shown():
    steps = [step(number, 9 if 20 <= number < 30 else 1, 0) for number in range(40)]
    assert [item["step"] for item in busiest(steps, 10)] == list(range(20, 30))


def test_the_target_follows_the_machine() -> None:
    """Chats count, and neither requests that branch nor those that were cut off."""
    facts = {"ttft_slo_s": None, "tpot_slo_s": None, "sent_s": 0.0, "first_token_s": 1.0}
    served = [
        Served(index=0, branches=1, last_token_s=1.2, output_tokens=21, **facts),
        Served(index=1, branches=1, last_token_s=1.4, output_tokens=21, **facts),
        Served(index=2, branches=1, last_token_s=1.6, output_tokens=21, **facts),
        Served(index=3, branches=8, last_token_s=9.0, output_tokens=21, **facts),
        Served(index=4, branches=1, last_token_s=None, output_tokens=3, **facts),
    ]
    assert target_ms(served) == 64
