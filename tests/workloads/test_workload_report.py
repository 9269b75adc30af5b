"""What is measured of a run, on outcomes made by hand."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from governor_workloads.errors import WorkloadError
from governor_workloads.report import LoadReport, summarise
from governor_workloads.served import Served
from hypothesis import given, settings
from hypothesis import strategies as st


def served(first_s: float | None, last_s: float | None, tokens: int, **fields: Any) -> Served:
    terms = {"branches": 1, "tpot_slo_s": None, "ttft_slo_s": None, "sent_s": 0.0, **fields}
    return Served(
        index=0, first_token_s=first_s, last_token_s=last_s, output_tokens=tokens, **terms
    )


def test_tpot_is_over_all_tokens_after_the_first() -> None:
    assert served(1.0, 2.0, 11).tpot_s == pytest.approx(0.1)
    assert served(1.0, 1.0, 1).tpot_s == 0.0
    assert served(1.0, 2.0, 40, branches=4).tpot_s == pytest.approx(1 / 39)


def test_every_target_must_be_met() -> None:
    assert served(1.0, 2.0, 11, tpot_slo_s=0.101).meets_targets
    assert not served(1.0, 2.0, 11, tpot_slo_s=0.099).meets_targets
    assert not served(1.0, 2.0, 11, tpot_slo_s=0.101, ttft_slo_s=0.9).meets_targets
    assert not served(1.0, 2.0, 11, tpot_slo_s=0.101, error="gone").meets_targets


def test_goodput_counts_the_tokens_of_requests_that_met_their_targets() -> None:
    report = summarise(
        [
            served(0.0, 10.0, 101, tpot_slo_s=0.101),
            served(0.0, 10.0, 51, tpot_slo_s=0.101),
            served(0.0, 10.0, 80, branches=8, tpot_slo_s=1.0),
            served(0.0, 10.0, 40, branches=8, tpot_slo_s=0.1),
            served(0.0, 1.0, 5, error="lost"),
            served(0.0, None, 5),
        ]
    )
    assert (report.requests, report.failed, report.unfinished) == (5, 1, 1)
    assert report.wall_s == 10.0
    assert report.output_tokens == 101 + 51 + 80 + 40
    assert report.throughput_tok_s == pytest.approx(27.2)
    assert report.goodput_tok_s == pytest.approx((101 + 80) / 10)
    assert report.attainment == pytest.approx(2 / 4)
    assert report.serial_attainment == pytest.approx(1 / 2)
    assert report.branching_attainment == pytest.approx(1 / 2)


def test_quantiles_are_of_the_right_requests() -> None:
    serial = [served(0.1 * i, 0.1 * i + 1e-3 * i * 10, 11, sent_s=0.0) for i in range(1, 102)]
    report = summarise([*serial, served(50.0, 50.7, 8, branches=2, sent_s=40.0)])
    assert report.ttft_p50_s == pytest.approx(5.15)
    assert report.ttft_p90_s == pytest.approx(9.19)
    assert report.serial_tpot_p50_s == pytest.approx(0.051)
    assert report.serial_tpot_p90_s == pytest.approx(0.091)
    assert report.serial_tpot_p99_s == pytest.approx(0.1)
    assert report.tpot_p50_s == pytest.approx(0.0515)
    assert report.tpot_p99_s < report.ttft_p99_s
    assert (report.branching_requests, report.victims) == (1, 0)
    assert report.branching_latency_p50_s == pytest.approx(10.7)
    assert report.branch_tokens_per_s == pytest.approx(8 / 10.7)


def test_a_window_judges_what_ended_inside_over_its_own_length() -> None:
    report = summarise(
        [
            served(0.0, 3.9, 40),  # ended before
            served(1.0, 4.0, 31, tpot_slo_s=0.11),
            served(6.0, 7.0, 11, tpot_slo_s=0.09),
            served(1.0, 8.0, 40),  # ended after
            served(5.0, None, 9),
            served(None, None, 0, sent_s=5.0, error="lost"),
            served(None, None, 0, sent_s=9.0, error="lost"),
        ],
        window=(4.0, 8.0),
    )
    assert (report.requests, report.failed, report.unfinished) == (3, 1, 1)
    assert report.wall_s == 4.0
    assert report.throughput_tok_s == pytest.approx((31 + 11) / 4)
    assert report.goodput_tok_s == pytest.approx(31 / 4)
    assert report.attainment == pytest.approx(1 / 2)


def test_an_empty_window_is_refused() -> None:
    with pytest.raises(WorkloadError, match="window"):
        summarise([], window=(3.0, 3.0))


def test_nothing_served_is_a_report_of_zeros() -> None:
    report = msgspec.structs.asdict(summarise([]))
    assert set(report.values()) == {0}


def test_victims_are_serial_requests_that_share_time_with_branching_ones() -> None:
    alone, beside = served(0.0, 1.0, 11), served(5.0, 7.0, 11)
    report = summarise([alone, beside, served(6.0, 8.0, 16, branches=8)])
    assert (report.victims, report.victim_tpot_p50_s) == (1, pytest.approx(0.2))


def test_branches_that_are_not_judged_have_victims_too() -> None:
    cut_off = served(6.0, None, 16, branches=8)
    assert summarise([served(5.0, 7.0, 11), served(0.0, 5.9, 11), cut_off]).victims == 1
    late = served(1.0, 20.0, 16, branches=8)
    assert summarise([served(5.0, 7.0, 11), late], window=(0.0, 10.0)).victims == 1


SPANS = st.tuples(st.integers(0, 40), st.integers(1, 10), st.sampled_from([1, 4]))


@settings(deadline=None, max_examples=60)
@given(st.lists(SPANS, max_size=12))
def test_victims_equal_the_definition_pair_by_pair(spans: list[tuple[int, int, int]]) -> None:
    items = [served(start, start + length, 9, branches=n) for start, length, n in spans]
    wide = [item for item in items if item.branching]

    def shares(item: Served) -> bool:
        return any(
            (item.first_token_s or 0.0) < (other.last_token_s or 0.0)
            and (other.first_token_s or 0.0) < (item.last_token_s or 0.0)
            for other in wide
        )

    assert summarise(items).victims == sum(shares(item) for item in items if not item.branching)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(SPANS, st.floats(1e-3, 5)), min_size=1, max_size=12))
def test_goodput_never_exceeds_throughput(spans: list[Any]) -> None:
    report: LoadReport = summarise(
        [served(a, a + n, 9, branches=b, tpot_slo_s=slo) for (a, n, b), slo in spans]
    )
    assert 0 <= report.goodput_tok_s <= report.throughput_tok_s
    assert 0 <= report.attainment <= 1
