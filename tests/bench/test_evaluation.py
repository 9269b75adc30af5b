"""Evaluations: the plan is sound, the arithmetic is right, the documents say what the files say."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from governor_bench.commands.eval import evaluate
from governor_bench.eval import validation
from governor_bench.eval.predictors import trained
from governor_bench.eval.setting import STOCK, Outcome, Setting
from governor_bench.eval.simulated import run_simulated
from governor_bench.eval.taper.document import compose
from governor_bench.eval.taper.figures import Cell, cells, headline
from governor_bench.eval.taper.plan import PLUS, TAPER, plan
from governor_bench.eval.workloads import NAMES, workload_of
from governor_profiles import load_profile
from governor_sim.clairvoyant import NAME as CLAIRVOYANT
from governor_workloads.report import LoadReport, summarise

from controller_service.policies.registry import parse_policy

ROOT = Path(__file__).parents[2]
SMALL = Setting(
    workload="steady",
    load=6,
    policy="taper_plus",
    profile="qwen3-32b-h200",
    slo_ms=50,
    seed=3,
    seconds=12,
    warm_up_s=4,
)


@pytest.mark.parametrize("quick", [True, False])
def test_every_setting_of_the_plan_can_be_run(quick: bool) -> None:
    settings = plan([1, 2, 3], quick=quick).settings
    assert len(settings) == len(set(settings)) or quick is False
    for setting in settings:
        assert setting.workload in NAMES
        assert setting.warm_up_s < setting.seconds
        load_profile(setting.profile)
        if setting.policy not in (STOCK, CLAIRVOYANT):
            parse_policy(setting.policy)
    assert {setting.seed for setting in settings} == ({1} if quick else {1, 2, 3})


def test_equal_settings_give_equal_outcomes() -> None:
    first, second = run_simulated(SMALL), run_simulated(SMALL)
    assert first.report == second.report
    assert first.report.output_tokens > 0
    other = run_simulated(msgspec.structs.replace(SMALL, seed=4))
    assert other.report != first.report


def test_a_mis_set_predictor_stays_wrong_and_a_corrected_one_does_not() -> None:
    profile = load_profile(SMALL.profile)
    truth = profile.step_s(64, 64_000)
    right = trained("published", profile, 1)
    assert right.predict(64.0, 64e3) == pytest.approx(truth, rel=0.03)
    for name, expected in (("published", 2 * truth), ("corrected-published", truth)):
        wrong = trained(name, profile, 1, factor=2.0)
        for rows in range(40, 80):
            step_s = profile.step_s(rows, 1000 * rows)
            wrong.observe(_sample(rows, 1000 * rows, step_s))
        assert wrong.predict(64.0, 64e3) == pytest.approx(expected, rel=0.05)


def _sample(rows: int, context: int, latency_s: float):
    from controller_service.predictors.base import StepSample

    return StepSample(rows, context, 0, latency_s)


def outcome(policy: str, load: float, goodput: float, attainment: float = 1.0) -> Outcome:
    setting = msgspec.structs.replace(SMALL, policy=policy, load=load)
    report = msgspec.structs.replace(EMPTY, goodput_tok_s=goodput, attainment=attainment)
    return Outcome(setting, report, 0.0, 0.0, 0.0, 0.0, {})


EMPTY: LoadReport = summarise([])


def curve(**goodputs: float) -> list[Cell]:
    from governor_bench.eval.taper.plan import FEW

    entries = [(item, outcome(item.policy, 96.0, goodputs[item.name])) for item in FEW]
    return cells(entries)


def test_the_headline_is_made_of_ratios_of_one_place() -> None:
    figures = headline(
        {
            "curve": curve(off=50.0, eager=60.0, taper=80.0, taper_plus=95.0, clairvoyant=100.0),
            "targets": curve(off=1.0, eager=1.0, taper=80.0, taper_plus=96.0, clairvoyant=1.0),
            "shift": curve(off=1.0, eager=1.0, taper=80.0, taper_plus=88.0, clairvoyant=1.0),
        }
    )
    assert figures["goodput_vs_off"] == pytest.approx(1.9)
    assert figures["goodput_vs_eager"] == pytest.approx(95 / 60)
    assert figures["published"]["goodput_vs_off"] == pytest.approx(1.6)
    assert figures["gap_closed"] == pytest.approx(0.75)
    assert figures["worst_vs_better_of_off_and_eager"] == pytest.approx(95 / 60)
    assert figures["improved_vs_published"] == pytest.approx(1.1), "the worst of both"


def test_seeds_are_summed_up_by_their_median_and_range() -> None:
    entries = [(PLUS, outcome(PLUS.policy, 8.0, value)) for value in (5.0, 9.0, 6.0)]
    (cell,) = cells(entries)
    assert (cell.goodput_tok_s, cell.goodput_range, cell.seeds) == (6.0, (5.0, 9.0), 3)


def test_errors_of_the_simulator_are_relative_to_the_real_engine() -> None:
    simulated = [outcome("off", 8.0, 90.0), outcome("off", 9.0, 103.0), outcome("off", 10.0, 100.0)]
    real = [outcome("off", 8.0, 100.0), outcome("off", 9.0, 100.0), outcome("off", 10.0, 100.0)]
    found = validation.compare(simulated, real)
    assert found["median_goodput_error_pct"] == pytest.approx(3.0)
    assert found["worst_goodput_error_pct"] == pytest.approx(10.0)
    assert found["settings"] == 3


def test_at_least_eight_settings_are_validated() -> None:
    assert len(validation.settings(quick=False)) >= 8


@pytest.mark.parametrize("name", NAMES)
def test_workloads_say_what_they_are(name: str) -> None:
    workload = workload_of(name, 5, 50, 1, 60)
    assert "n" in workload.description
    assert workload == workload_of(name, 5, 50, 1, 60)
    longest = max(request.total_output_tokens for request in workload.requests)
    assert longest <= 1200


def test_an_unknown_workload_is_refused() -> None:
    with pytest.raises(ValueError, match="steady"):
        workload_of("nonsense", 5, 50, 1, 60)


def test_the_quick_evaluation_prints_one_report(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        evaluate,
        ["taper", "--quick", "--plots", str(tmp_path), "--json", str(tmp_path / "report.json")],
    )
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "report.json").read_text())
    wanted = {
        "goodput_vs_off",
        "goodput_vs_eager",
        "attainment",
        "load",
        "slo_ms",
        "seeds",
        "curve",
        "improved_vs_published",
        "gap_closed",
        "worst_vs_better_of_off_and_eager",
    }
    assert wanted <= set(report)
    assert set(report["curve"][0]["policies"]) >= {"off", "eager", TAPER.name, PLUS.name}
    assert (tmp_path / "curve.png").stat().st_size > 10_000


def test_a_file_that_is_no_validation_is_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"a": 1}')
    result = CliRunner().invoke(evaluate, ["taper", "--quick", "--validation", str(wrong)])
    assert result.exit_code == 2
    assert "governor eval validate" in result.output


def test_the_document_says_what_the_result_files_say() -> None:
    assert (ROOT / "docs/results/taper.md").read_text() == compose(ROOT / "benchmarks/results")


def test_an_interrupted_evaluation_goes_on_where_it_was(tmp_path: Path) -> None:
    from governor_bench.eval.cache import OutcomeCache
    from governor_bench.eval.pool import run_all
    from rich.progress import Progress

    other = msgspec.structs.replace(SMALL, policy="off")
    cache = OutcomeCache(tmp_path)
    (first,) = run_all(run_simulated, [SMALL], Progress(disable=True), cache=cache)
    (file,) = tmp_path.iterdir()
    with file.open("ab") as lines:
        lines.write(b'{"setting": {"workload": "cut off')
    again = OutcomeCache(tmp_path)
    assert len(again) == 1
    known = msgspec.structs.replace(first, rows=-1.0)
    again.add(known)
    taken, run = run_all(run_simulated, [SMALL, other], Progress(disable=True), cache=again)
    assert taken == known, "it was not run again"
    assert run.setting == other
    assert run.rows > 0


@pytest.mark.parametrize("quick", [True, False])
def test_tier_e_runs_what_real_time_allows(quick: bool) -> None:
    from governor_bench.eval.taper.run import _for_real_time

    settings = _for_real_time(plan([1], quick=quick), quick=quick).settings
    assert {setting.policy for setting in settings} == {"off", "eager", "taper", "taper_plus"}
    assert sum(setting.seconds for setting in settings) <= (40 if quick else 20 * 60)
