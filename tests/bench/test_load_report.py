"""What is measured of a run, on results made by hand."""

from __future__ import annotations

import pytest
from governor_bench.demo.measure import Turn, summarise_policy
from governor_bench.demo.plot import busiest, plot_steps
from governor_bench.engine_metrics import GovernorCounters
from governor_bench.load.client import Branch, RequestResult
from governor_bench.load.report import meets_targets, summarise
from governor_bench.load.spec import RequestSpec


def result(first_s, last_s, tokens, *, n=1, slo_ms=None, error="", abort=None, ttft_ms=None):
    spec = RequestSpec(
        0, 0.0, (5,), 100, n=n, tpot_slo_ms=slo_ms, ttft_slo_ms=ttft_ms, abort_after_s=abort
    )
    made = RequestResult(spec, sent_s=0.0, first_token_s=first_s, last_token_s=last_s, error=error)
    made.branches = [Branch([1] * (tokens // n)) for _ in range(n)]
    return made


def test_tpot_is_over_all_tokens_after_the_first():
    assert result(1.0, 2.0, 11).tpot_s == pytest.approx(0.1)
    assert result(1.0, 1.0, 1).tpot_s == 0.0
    assert result(1.0, 2.0, 40, n=4).tpot_s == pytest.approx(1 / 39)


def test_every_target_must_be_met():
    assert meets_targets(result(1.0, 2.0, 11, slo_ms=101))
    assert not meets_targets(result(1.0, 2.0, 11, slo_ms=99))
    assert not meets_targets(result(1.0, 2.0, 11, slo_ms=101, ttft_ms=900))
    assert not meets_targets(result(1.0, 2.0, 11, error="gone"))


def test_goodput_counts_the_tokens_of_requests_that_met_their_targets():
    report = summarise(
        [
            result(0.0, 10.0, 101, slo_ms=101),
            result(0.0, 10.0, 51, slo_ms=101),
            result(0.0, 10.0, 80, n=8, slo_ms=1000),
            result(0.0, 1.0, 5, error="lost"),
            result(0.0, 1.0, 5, abort=0.5),
        ]
    )
    assert (report.requests, report.failed) == (4, 1)
    assert report.goodput_tok_s == pytest.approx((101 + 80) / 10)
    assert report.throughput_tok_s == pytest.approx((101 + 51 + 80) / 10)
    assert report.attainment == pytest.approx(2 / 4)
    assert report.serial_attainment == pytest.approx(1 / 2)


def test_victims_are_serial_requests_that_share_time_with_branching_ones():
    alone, beside = result(0.0, 1.0, 11), result(5.0, 7.0, 11)
    report = summarise([alone, beside, result(6.0, 8.0, 16, n=8)])
    assert report.victim_tpot_p50_s == pytest.approx(0.2)


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
    counters = GovernorCounters({"applied": 9, "late": 1}, {"late": 1, "stale": 0}, 7, 0, True)
    load = summarise([result(0.0, 10.0, 101)])
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
