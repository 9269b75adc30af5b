"""Tier C of the evaluation of speculation, without an engine: plan, texts, report, document."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from governor_bench.eval.speculation.baselines import FIRST_LENGTH, TIERS, Table, policy_of
from governor_bench.eval.speculation.cpu import plan, run, section
from governor_bench.eval.speculation.cpu.rig import Run, own_rule
from governor_bench.eval.speculation.cpu.texts import OUTPUT_TOKENS, Texts, name_of
from governor_bench.eval.speculation.document import compose
from governor_bench.eval.speculation.plan import TABLE, Contender
from governor_bench.eval.speculation.plots import plot_computed
from governor_bench.eval.speculation.recorded import late_share, step_figures
from governor_bench.eval.speculation.setting import CPU, Outcome, Setting, judged_requests
from governor_protos.messages import Outcome as StepOutcome
from rich.progress import Progress

SPEEDS = {"fixed_draft:3": 130.0, "turbospec": 120.0, "eager": 110.0}
"""Tokens per second that a policy is made to have; the others have 100."""


def texts(count: int = 200) -> Texts:
    return Texts.of([(number, 9) for number in range(count)], [n / count for n in range(count)])


class FakeRig:
    """Every policy has its speed, and one gets one token of one request wrong."""

    def __init__(self, wrong: str = "") -> None:
        self.wrong = wrong
        self.seen: list[Setting] = []

    def sorted_texts(self, most: int) -> Texts:
        return texts(2 * most)

    def run(self, setting: Setting, of: Texts) -> Run:
        assert of.well
        self.seen.append(setting)
        tokens = SPEEDS.get(setting.policy, 100.0) + setting.seed
        outcome = Outcome(
            setting=setting, tokens_per_s=tokens, goodput_tok_s=tokens, tight_attainment=None,
            tight_tpot_ms=None, rows=1.0, draft_tokens_per_row=1.0, accepted_per_row=0.5,
            length=1.0, step_ms=10.0, times_real_time=1.0, late_share=0.25,
        )  # fmt: skip
        outputs = {0: [1, 2], 1: [setting.seed, setting.load]}
        if setting.policy == self.wrong and setting.seed == 1:
            outputs[1] = [7]
        return Run(outcome, outputs)


def report_of(
    monkeypatch: pytest.MonkeyPatch, rig: FakeRig, *, quick: bool = False
) -> section.Report:
    monkeypatch.setattr(run, "cpu_rig", lambda *_: contextlib.nullcontext(rig))
    with Progress(disable=True) as progress:
        report = run.evaluate_on_cpu([1, 2, 3], progress, quick=quick)
    decoded: section.Report = msgspec.json.decode(msgspec.json.encode(report))
    return decoded


def test_the_report_says_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = FakeRig()
    report = report_of(monkeypatch, rig)
    assert report["worst_cell_vs_best_fixed"] == pytest.approx(122 / 132)
    assert report["best_single_fixed"] == "fixed 3"
    assert report["vs_best_single_fixed"] == pytest.approx(122 / 132)
    assert report["vs_sglang_adaptive"] == pytest.approx(122 / 112)
    assert report["vs_batch_table"] == pytest.approx(122 / 102)
    assert report["batch_table"] == "batch_table:1=3,2=3,8=3"
    assert report["tree_vs_local"] == pytest.approx(1.0)
    assert len(report["tree_vs_local_cells"]) == len(plan.TREE_LOADS) * len(plan.TREE_BUDGETS)
    assert (report["token_mismatches"], report["late_share"]) == (0, 0.25)
    assert report["arguments"]["runs"] == len(rig.seen)
    assert len(report["cells"]) == len(plan.LOADS) * len(plan.PLACES)
    for cell in report["cells"]:
        assert {one["name"] for one in cell["figures"]} >= {"none", "fixed 7", TABLE, "turbospec"}
        assert set(cell["accept_length"].values()) == {1.5}
        assert all(one["tokens_range"][0] < one["tokens_range"][1] for one in cell["figures"])


def test_a_wrong_token_is_counted_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    report = report_of(monkeypatch, FakeRig(wrong="turbospec"), quick=True)
    assert report["token_mismatches"] == 2, "one in each cell"
    assert report["tree_vs_local"] is None
    assert report["compared_requests"] == 2 * 2 * 6
    assert report["mismatched"][0] == "turbospec, 4 users, drafted well, round 1, request 1"


def test_a_report_makes_a_section_and_a_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for quick in (True, False):
        report = report_of(monkeypatch, FakeRig(), quick=quick)
        text = section.section(report)
        assert f"{report['vs_sglang_adaptive']:.3f}" in text
        assert "drafted badly" in text
        assert plot_computed(report, tmp_path / "c.png").stat().st_size > 0
    results = Path(__file__).parents[2] / "benchmarks" / "results"
    (tmp_path / "speculation-S.json").write_bytes((results / "speculation-S.json").read_bytes())
    assert text not in compose(tmp_path)
    (tmp_path / section.RESULT_FILE).write_bytes(msgspec.json.encode(report))
    assert text in compose(tmp_path)


def test_each_policy_meets_the_same_requests_in_each_place_once() -> None:
    contenders = (*plan.CONTENDERS, Contender(TABLE, "batch_table:1=3", CPU))
    turns = [plan.turn(seed, contenders, quick=False) for seed in (1, 2)]
    for number, turn in enumerate(turns, 1):
        assert len(set(turn)) == len(turn)
        assert {setting.seed for _, setting in turn} == {number}
        places = Counter((s.load, s.level, s.other_level) for _, s in turn)
        assert set(places.values()) == {len(contenders)}
        for contender, setting in [*turn, *plan.trees(number)]:
            assert policy_of(contender.policy).label == setting.policy
    assert turns[0][0][0] != turns[1][0][0], "the order rotates"


def test_requests_are_the_same_for_all_policies_and_of_the_asked_kind() -> None:
    ours = texts()
    for level, other, first, last in ((1.0, None, 1, 1), (0.0, None, 0, 0), (0.0, 1.0, 1, 0)):
        setting = Setting(4, level, "turbospec", 3, other, engine=CPU)
        specs = ours.requests(setting)
        assert specs == ours.requests(msgspec.structs.replace(setting, policy="eager"))
        assert specs != ours.requests(msgspec.structs.replace(setting, seed=4))
        assert len(specs) == 8 + judged_requests(setting)
        assert len({spec.input_ids for spec in specs}) == len(specs)
        is_well = [spec.input_ids in ours.well for spec in specs]
        middle = 4 + judged_requests(setting) // 2
        assert set(is_well[:middle]) == {bool(first)}
        assert set(is_well[middle:]) == {bool(last)}
        low, high = OUTPUT_TOKENS
        assert all(spec.ignore_eos and low <= spec.max_new_tokens <= high for spec in specs)


def test_texts_are_the_two_ends() -> None:
    found = Texts.of([(n,) for n in range(10)], [1.0, 3.0, 2.0, 1.5, 2.5, 1.2, 2.2, 1.1, 2.9, 2.0])
    assert set(found.well) == {(1,), (8,)}
    assert set(found.badly) == {(0,), (7,)}
    assert (found.accept_well, found.accept_badly) == pytest.approx((2.95, 1.05))
    assert name_of(0.0, 1.0) == "drafted well, then drafted badly"


def test_a_table_counts_from_halfway_between_loads() -> None:
    assert plan.by_rows(Table({1: 5, 4: 3, 16: 1})).text() == "batch_table:1=5,2=3,8=1"
    assert plan.by_rows(Table({4: 3})).text() == "batch_table:1=3"


def test_sglangs_rule_is_its_own_whatever_other_lengths_there_are(tmp_path: Path) -> None:
    parameters = pytest.importorskip("sglang.srt.speculative.adaptive_spec_params")
    path = tmp_path / "rule.json"
    path.write_text(json.dumps(own_rule()))
    ours = parameters.AdaptiveSpeculativeParams(FIRST_LENGTH, str(path))
    stock = parameters.AdaptiveSpeculativeParams(FIRST_LENGTH)
    assert tuple(ours.candidate_steps) == plan.LENGTHS
    assert len(TIERS) == len(parameters.DEFAULT_ADAPTIVE_CONFIG)
    for rows in (1, 7, 12, 40, 90):
        for number in range(80):
            accepted = [2.8 if number < 40 else 0.2] * rows
            assert ours.get_steps_for_batch(rows) == stock.get_steps_for_batch(rows)
            assert ours.on_verify_complete(accepted, rows) == stock.on_verify_complete(
                accepted, rows
            )


def test_figures_are_those_of_the_steps() -> None:
    steps = [
        {
            "rows": rows, "draft_tokens": 3 * rows, "accepted_tokens": rows, "draft_length": 3,
            "latency_s": 0.02, "outcome": outcome,
        }
        for rows, outcome in ((2, StepOutcome.APPLIED), (4, StepOutcome.LATE))
    ]  # fmt: skip
    found = step_figures(steps, 2.0, times_real_time=1.0)
    assert (found.rows, found.draft_tokens_per_row, found.accepted_per_row) == (3.0, 3.0, 1.0)
    assert (found.length, found.step_ms) == (3.0, 10.0)
    assert late_share(steps) == 0.5
    assert late_share([]) == 0.0
