"""The evaluation of the order of service: traffic is what it is called, figures add up."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from governor_bench.eval.laps_sd import changes_section, emulated, emulated_section, plan
from governor_bench.eval.laps_sd import run as evaluation
from governor_bench.eval.laps_sd.contestants import LOF, SRPT, policy_of, rounds_to_the_end
from governor_bench.eval.laps_sd.document import compose
from governor_bench.eval.laps_sd.estimation import Recorder
from governor_bench.eval.laps_sd.figures import MEASURED, Cell, Figure, cells_of, headline
from governor_bench.eval.laps_sd.judge import RunFailed, judge
from governor_bench.eval.laps_sd.plan import Entry, Place
from governor_bench.eval.laps_sd.plots import plot_all, value
from governor_bench.eval.laps_sd.run import evaluate_simulated
from governor_bench.eval.laps_sd.saturation import saturation_per_s
from governor_bench.eval.laps_sd.setting import (
    DECLARED,
    DRAFT_TOKENS,
    HINTED,
    SILENT,
    TELLING,
    Estimates,
    Outcome,
    Setting,
    Timing,
    workload_for,
)
from governor_bench.eval.laps_sd.shapes import HINT_SPREAD, SHAPES, shape_of
from governor_bench.eval.laps_sd.simulated import run, simulated
from governor_bench.eval.setting import STOCK
from governor_workloads.served import Served
from rich.progress import Progress

from controller_service.policies.base import Knob
from controller_service.policies.registry import parse_policy

SMALL = Setting("synthesis", 0.9, 3, shortened=12.0)


@pytest.mark.parametrize("quick", [True, False])
def test_every_setting_of_the_plan_can_be_run(quick: bool) -> None:
    parts = (plan.main, plan.hinted, plan.trade_off, plan.variants)
    for place, _, setting in [entry for part in parts for entry in part([1, 2], quick=quick)]:
        assert setting.shape == place.shape
        assert setting.rate_per_s > 0
        if setting.policy not in (STOCK, LOF, SRPT):
            assert parse_policy(setting.policy).decides(Knob.ORDER)


def test_contenders_of_a_cell_meet_the_same_requests() -> None:
    place = Place("instructions", 0.8)
    settings = [plan.setting_of(place, one, 1, shortened=8.0) for one in plan.MAIN]
    assert len({workload_for(setting).requests for setting in settings}) == 1
    assert len(set(settings)) == len(settings)


def test_with_hints_only_those_run_again_who_look_at_them() -> None:
    told = {setting for _, _, setting in plan.main([1], quick=False)}
    again = [entry for entry in plan.hinted([1], quick=False) if entry[2] not in told]
    assert {one.name for _, one, _ in again} == {"sjf", "laps_sd"}
    assert {setting.lengths for _, _, setting in again} == {HINTED}


@pytest.mark.parametrize("policy", [one.policy for one in plan.BLIND])
def test_a_hint_changes_nothing_for_those_that_are_not_run_again(policy: str) -> None:
    plain = run(msgspec.structs.replace(SMALL, policy=policy))
    hinted = run(msgspec.structs.replace(SMALL, policy=policy, lengths=HINTED))
    assert plain.latencies_s == hinted.latencies_s
    assert plain.preemptions == hinted.preemptions


def test_hints_are_as_far_off_as_is_said_and_change_nothing_else() -> None:
    long = Setting("instructions", 0.9, 1)
    plain = workload_for(long)
    hinted = workload_for(msgspec.structs.replace(long, lengths=HINTED))
    assert {one.expected_tokens for one in plain.requests} == {0}
    assert plain.requests == tuple(
        msgspec.structs.replace(one, expected_tokens=0) for one in hinted.requests
    )
    off = np.log([one.expected_tokens / one.output_tokens for one in hinted.requests])
    assert abs(off.mean()) < 0.02
    assert off.std() == pytest.approx(HINT_SPREAD, rel=0.1)
    assert min(one.expected_tokens for one in hinted.requests) >= 1
    assert "each declares its output times exp(N(0, 0.2))" in hinted.description
    assert "declares" not in plain.description
    other = workload_for(msgspec.structs.replace(long, seed=2, lengths=HINTED))
    assert [one.expected_tokens for one in other.requests] != [
        one.expected_tokens for one in hinted.requests
    ]


@pytest.mark.parametrize(
    ("shape", "places", "speculates"),
    [("instructions", 4, True), ("synthesis", 16, False)],
)
def test_saturation_is_what_ends_of_a_backlog(shape: str, places: int, speculates: bool) -> None:
    drafting, plain = shape_of(shape).saturation_per_s[places]
    found = saturation_per_s(shape, places, 1, speculates=speculates, requests=800)
    assert found == pytest.approx(drafting if speculates else plain, rel=0.1)


@pytest.mark.parametrize("shape", SHAPES)
def test_prompts_tell_of_lengths_unless_they_are_shuffled(shape: Any) -> None:
    long = Setting(shape.name, 0.9, 1, shortened=0.25)
    told = workload_for(long).requests
    silent = workload_for(msgspec.structs.replace(long, lengths=SILENT)).requests

    def correlation(requests: Any) -> float:
        logs = np.log([(one.prompt_tokens, one.output_tokens) for one in requests])
        return float(np.corrcoef(logs.T)[0, 1])

    assert correlation(told) > 0.4
    assert abs(correlation(silent)) < 0.15
    assert sorted(one.prompt_tokens for one in told) == sorted(one.prompt_tokens for one in silent)
    assert [one.output_tokens for one in told] == [one.output_tokens for one in silent]
    assert max(one.output_tokens for one in told) < shape.limit_tokens


def test_the_load_is_what_it_is_called_with_every_seed() -> None:
    for seed in (1, 2, 3):
        setting = Setting("instructions", 0.8, seed)
        requests = workload_for(setting).requests
        assert len(requests) == round(setting.rate_per_s * setting.timing.sending_s)
        assert requests[-1].arrival_s == pytest.approx(setting.timing.sending_s)
        gaps = np.diff([one.arrival_s for one in requests])
        assert gaps.std() / gaps.mean() > 2.5


def test_no_shape_of_a_wrong_name() -> None:
    with pytest.raises(ValueError, match="no shape 'code'; choose one of instructions"):
        shape_of("code")


def test_rounds_to_the_end_are_those_of_the_draft() -> None:
    assert DRAFT_TOKENS == 3
    assert rounds_to_the_end([2] * 5, 4).tolist() == [4, 3, 2, 1, 0]
    # Prefill brings one token, then a round brings three of a draft and one more.
    assert rounds_to_the_end([1] * 6, 5).tolist() == [2, 1, 1, 1, 1, 0]
    assert rounds_to_the_end([1, 1, 2, 1, 1, 1], 5)[1] == 2


def test_the_oracle_knows_how_many_rounds_a_request_takes() -> None:
    """Alone in its batch, a request takes as many steps as it says."""
    setting = msgspec.structs.replace(SMALL, share=0.05, policy=SRPT)
    workload = workload_for(setting)
    first = msgspec.structs.replace(workload, requests=workload.requests[:1])
    steps = simulated(setting, first, None).steps
    (request,) = first.requests
    assert first.acceptance is not None
    choice = first.acceptance.luck(first.seed, request.index, 0, request.output_tokens + 1).choice
    expected = rounds_to_the_end(choice.tolist(), request.output_tokens)[0]
    # The overlap loop learns of the last token one step late.
    assert len(steps) == expected + 1


def test_nobody_is_faster_on_average_than_the_oracle() -> None:
    setting = msgspec.structs.replace(SMALL, share=0.95, seed=1, shortened=4.0)
    oracle = run(msgspec.structs.replace(setting, policy=SRPT))
    assert oracle.preemptions > 0
    for other in (STOCK, "sjf", "laps_sd"):
        assert oracle.mean_s < run(msgspec.structs.replace(setting, policy=other)).mean_s


def served(index: int, sent_s: float, last_s: float | None, error: str = "") -> Served:
    first_s = None if last_s is None else sent_s + 0.5
    return Served(index, 1, None, None, sent_s, first_s, last_s, 10, error)


def test_only_requests_of_the_window_are_judged_and_all_of_them() -> None:
    start_s, stop_s = SMALL.timing.window_s
    results = [
        served(0, start_s - 1, start_s + 50),
        served(1, start_s, start_s + 2),
        served(2, start_s + 1, None),
        served(3, stop_s, stop_s + 50),
    ]
    found = judge(SMALL, results, end_s=start_s + 11, preemptions=2)
    assert (found.judged, found.unfinished) == (2, 1)
    assert found.mean_s == pytest.approx((2 + 10) / 2)
    assert found.longest_s == pytest.approx(10)
    assert found.preemptions == pytest.approx(50), "per 100 requests of the run"
    assert (found.latencies_s[0], found.latencies_s[-1]) == (2.0, 10.0)
    with pytest.raises(RunFailed, match="HTTP 500"):
        judge(SMALL, [*results, served(4, start_s, None, "HTTP 500")], end_s=99.0, preemptions=0)
    with pytest.raises(RunFailed, match="could be judged"):
        judge(SMALL, results[:1], end_s=99.0, preemptions=0)


def test_equal_settings_give_equal_outcomes_and_estimates_are_made() -> None:
    setting = msgspec.structs.replace(SMALL, policy="laps_sd")
    first, again = run(setting), run(setting)
    assert msgspec.structs.replace(first, times_real_time=0) == msgspec.structs.replace(
        again, times_real_time=0
    )
    assert first.estimates is not None
    assert first.estimates.requests > 0
    assert first.estimates.seconds > 0
    assert run(SMALL).estimates is None


def test_a_declared_length_leaves_only_the_pace_to_guess() -> None:
    setting = msgspec.structs.replace(SMALL, policy="laps_sd", lengths=DECLARED)
    workload = workload_for(setting)
    recorder = Recorder(policy_of(setting, workload))
    simulated(setting, workload, recorder.policy)
    hidden = msgspec.structs.replace(setting, lengths=TELLING)
    blind = Recorder(policy_of(hidden, workload))
    simulated(hidden, workload, blind.policy)
    assert recorder.estimates().tokens < blind.estimates().tokens


def figure(name: str, mean_s: float, p99_s: float = 1.0, **others: Any) -> Figure:
    values: dict[str, Any] = dict.fromkeys(MEASURED, 1.0) | {"mean_s": mean_s, "p99_s": p99_s}
    return Figure(
        name=name,
        mean_range_s=(mean_s, mean_s),
        p99_range_s=(p99_s, p99_s),
        latencies_s=[0.0] * 101,
        **({"estimates": None} | values | others),
    )


def cell(share: float, ours: Figure, *others: Figure) -> Cell:
    return Cell(**Place("synthesis", share)._asdict(), rate_per_s=1.0, figures=[*others, ours])


def test_headline_figures_are_what_they_are_called() -> None:
    others = (figure("fcfs", 10.0, 20.0), figure("las", 8.0), figure("sjf", 5.0))
    cells = [
        cell(0.5, figure("laps_sd", 90.0), *others, figure("srpt", 1.0)),
        cell(
            0.7,
            figure("laps_sd", 4.0, 30.0, estimates=Estimates(9, 0.2, 0.1, 0.3, 4.0, -0.05)),
            *others,
            figure("srpt", 3.2),
        ),
        cell(0.95, figure("laps_sd", 6.0, 10.0, preemptions=7.0), *others, figure("srpt", 6.0)),
    ]
    found = headline(cells)
    assert found["cells"] == 2, "others are at loads that do not count"
    assert found["mean_latency_vs_fcfs"] == pytest.approx(0.6)
    assert found["mean_latency_vs_las"] == pytest.approx(6 / 8)
    assert found["mean_latency_vs_sjf"] == pytest.approx(6 / 5)
    assert found["mean_latency_vs_better_of_las_and_sjf"] == pytest.approx(6 / 5)
    assert found["gap_to_srpt"] == pytest.approx(0.25)
    assert found["p99_vs_fcfs"] == pytest.approx(1.5)
    assert found["estimation_error"] == pytest.approx(0.2)
    assert found["preemptions"] == 7.0
    assert found["on_average"]["pace_bias"] == pytest.approx(-0.05)
    assert found["on_average"]["mean_latency_vs_fcfs"] == pytest.approx((0.4 * 0.6) ** 0.5)


def test_cells_hold_medians_over_seeds() -> None:
    def outcome(seed: int) -> Outcome:
        values: dict[str, Any] = dict.fromkeys(MEASURED, 1.0) | {"mean_s": float(seed)}
        setting = msgspec.structs.replace(SMALL, seed=seed)
        return Outcome(setting=setting, latencies_s=(1.0,) * 101, **values)

    place = Place("synthesis", 0.9)
    (found,) = cells_of([(place, plan.OURS, outcome(seed)) for seed in (1, 2, 9)])
    assert found.of("laps_sd").mean_s == 2.0
    assert found.of("laps_sd").mean_range_s == (1.0, 9.0)
    with pytest.raises(KeyError, match="not run under synthesis"):
        found.of("fcfs")


def one_by_one(
    run: Callable[[Setting], Outcome], settings: list[Setting], *_: Any, **__: Any
) -> Any:
    """In this process: the runs are short, and starting others takes longer."""
    return [run(setting) for setting in settings]


def at_one_place(lengths: str, contenders: Sequence[plan.Contender]) -> Callable[..., list[Entry]]:
    """A part of a plan that takes no time."""

    def entries(seeds: list[int], *, quick: bool) -> list[Entry]:
        place = Place(SMALL.shape, plan.SHOWN_SHARE, lengths=lengths)
        return [
            (place, one, plan.setting_of(place, one, seed, shortened=30.0))
            for one in contenders
            for seed in seeds
        ]

    return entries


def test_a_run_makes_a_report_a_document_and_plots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = (plan.TRADE_OFF[0], plan.OURS)
    monkeypatch.setattr(evaluation, "run_all", one_by_one)
    monkeypatch.setattr(plan, "main", at_one_place(TELLING, plan.MAIN))
    monkeypatch.setattr(plan, "hinted", at_one_place(HINTED, plan.MAIN))
    monkeypatch.setattr(plan, "trade_off", at_one_place(TELLING, (plan.FIRST_COME, *shares)))
    monkeypatch.setattr(plan, "variants", at_one_place(DECLARED, plan.WITH_LIMITS))
    monkeypatch.setattr(changes_section, "TRADE_OFF", shares)
    with Progress(disable=True) as progress:
        report = evaluate_simulated([1], progress, quick=True)
    for key in (
        "mean_latency_vs_fcfs", "mean_latency_vs_las", "mean_latency_vs_sjf", "gap_to_srpt",
        "p99_vs_fcfs", "estimation_error", "preemptions", "curve",
    ):  # fmt: skip
        assert key in report
        assert key in report["hinted"]
    blind, looking = (
        {
            name
            for name in ("fcfs", "las", "srpt", "sjf", "laps_sd")
            if is_same(report, name) is same
        }
        for same in (True, False)
    )
    assert blind == {"fcfs", "las", "srpt"}
    assert looking == {"sjf", "laps_sd"}
    (tmp_path / "laps_sd-S.json").write_bytes(msgspec.json.encode(report))
    text = compose(tmp_path)
    for grid in (report, report["hinted"]):
        assert f"{grid['mean_latency_vs_fcfs']:.3f}" in text
    assert "exp(N(0, 0.2))" in text
    assert "| synthesis | the default | " in text
    assert "limits are what requests say" in text
    assert "synthesis, 0.9, hints" in text
    assert all(path.stat().st_size > 0 for path in plot_all(report, tmp_path / "plots"))


def is_same(report: dict[str, Any], name: str) -> bool:
    """Whether hints left the figures of ``name`` as they were."""
    plain, hinted = (value(grid["curve"][0], name) for grid in (report, report["hinted"]))
    return bool(plain == hinted)


class SimulatedRig:
    """The simulator in the place of an engine."""

    def train(self, settings: list[Setting]) -> None:
        assert settings

    def run(self, setting: Setting) -> Outcome:
        return run(setting)


def test_tier_e_makes_a_report_and_a_section(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulated, "laps_sd_rig", lambda *_: contextlib.nullcontext(SimulatedRig()))
    monkeypatch.setattr(emulated, "run_all", one_by_one)
    monkeypatch.setattr(plan, "EMULATED_CELLS", plan.EMULATED_CELLS[:1])
    monkeypatch.setattr("governor_bench.eval.laps_sd.setting.EMULATED", Timing(1.0, 4.0, 1.0, 2.0))
    with Progress(disable=True) as progress:
        report = emulated.evaluate_emulated([1], 5.0, progress, quick=True)
    assert report["simulator_error"]["mean_s"]["worst_pct"] == 0.0
    assert report["hosts"]["scale"] == 5.0
    assert report["mean_latency_vs_las"] is None, "a quick run has no such contender"
    text = emulated_section.section(msgspec.json.decode(msgspec.json.encode(report)))
    assert "stretched by 5" in text


def test_every_setting_of_tier_e_fits_its_run() -> None:
    for _, _, setting in plan.emulated([1], quick=False):
        parse_policy(setting.policy)
        assert setting.timing.end_s <= 60
        start_s, stop_s = setting.timing.window_s
        requests = workload_for(setting).requests
        assert sum(start_s <= one.arrival_s < stop_s for one in requests) > 50


def test_a_missing_result_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="governor eval laps-sd --tier S --json"):
        compose(tmp_path)
