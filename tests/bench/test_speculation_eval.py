"""The evaluation of speculation: baselines are what they are called, figures add up."""

from __future__ import annotations

import contextlib
import itertools
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from governor_bench.eval.predictors import trained
from governor_bench.eval.speculation import emulated, emulated_section, plan
from governor_bench.eval.speculation.baselines import TIERS, SglangAdaptive, policy_of
from governor_bench.eval.speculation.document import compose
from governor_bench.eval.speculation.figures import (
    Cell,
    Figure,
    best_single,
    cells_of,
    headline,
    tuned_table,
)
from governor_bench.eval.speculation.plan import FIXED, TABLE, TURBOSPEC, Entries
from governor_bench.eval.speculation.plots import plot_all
from governor_bench.eval.speculation.run import evaluate_simulated
from governor_bench.eval.speculation.setting import (
    Outcome,
    RunFailed,
    Setting,
    StepFigures,
    engine_of,
    judge,
    judged_requests,
    run,
    workload_of,
)
from governor_profiles import load_profile
from governor_protos.columns import ROW_COLUMNS, pack
from governor_protos.messages import Rows, Snapshot
from governor_workloads.served import Served
from rich.progress import Progress

from controller_service.policies.base import DraftPlan
from controller_service.policies.registry import parse_policy
from controller_service.predictors.base import NO_DRAFTING
from controller_service.predictors.linear import LinearPredictor
from controller_service.speculation.drafting import DraftState, VerifiedStep
from controller_service.state import StepState

SMALL = Setting(load=3, level=0.7, policy="turbospec", seed=2, shortened=4)


def state_of(rows: int, *finished: VerifiedStep) -> StepState:
    whole = {name: [1] * rows for name in ROW_COLUMNS}
    columns = {name: pack(code, whole[name]) for name, code in ROW_COLUMNS.items()}
    drafts = DraftState(
        lengths=(0, 1, 3, 7), width=1, most_tokens=7, is_ragged=True, takes_budget=False,
        switch_s=0.0, last_length=-1, acceptance=np.full(rows, 0.5), by_position=np.ones(7),
        cost=NO_DRAFTING, batch_acceptance=0.5, measured_tokens=np.full(4, np.nan),
        finished=finished,
    )  # fmt: skip
    return StepState.from_snapshot(Snapshot(1, Rows(**columns), 0, 9999, 0, 0, [], 0), 0.0, drafts)


def lengths_under(rows: int, accepted: list[float]) -> list[int]:
    """What SGLang's adaptive drafts, given what each row is given at each step."""
    policy, lengths = SglangAdaptive(), []
    steps: tuple[VerifiedStep, ...] = ()
    for mean in accepted:
        state = state_of(rows, *steps)
        empty = parse_policy("eager").plan(state, LinearPredictor())
        found = policy.decide(state, LinearPredictor(), None, empty)
        assert isinstance(found, DraftPlan)
        lengths.append(found.length)
        total = round(rows * min(mean, found.length))
        steps = (VerifiedStep(rows, found.length, rows * found.length, total),)
    return lengths


def test_sglang_adaptive_starts_in_the_middle_and_moves_every_fifth_step() -> None:
    lengths = lengths_under(1, [9.0] * 40)
    assert lengths[:15] == [3] * 15, "ten steps to warm up, then every fifth"
    assert lengths[-1] == 7
    assert lengths_under(1, [0.0] * 40)[-1] == 1, "its smallest batches always draft"


def test_sglang_adaptive_does_without_drafts_in_large_batches() -> None:
    assert set(lengths_under(80, [9.0] * 30)) == {0}
    middle = lengths_under(40, [0.0] * 60)
    assert set(middle) == {0, 1}, "and tries the shortest draft again"


def test_tiers_are_sglangs_own() -> None:
    parameters = pytest.importorskip("sglang.srt.speculative.adaptive_spec_params")
    config = parameters.DEFAULT_ADAPTIVE_CONFIG
    theirs = {
        (int(rows), tuple(tier["candidate_steps"]), tier["down_hysteresis"])
        for rows, tier in config.items()
    }
    assert theirs == set(TIERS)
    for rows, accepted in ((1, 2.6), (12, 1.0), (40, 0.2), (80, 5.0)):
        real = parameters.AdaptiveSpeculativeParams(initial_steps=3)
        wanted = []
        for number in range(60):
            mean = accepted * (1.5 if number < 30 else 0.3)
            wanted.append(real.get_steps_for_batch(rows))
            total = round(rows * min(mean, wanted[-1]))
            real.on_verify_complete([total / rows] * rows, rows)
        means = [accepted * (1.5 if number < 30 else 0.3) for number in range(60)]
        assert lengths_under(rows, means) == wanted


def test_a_table_goes_by_batch_size() -> None:
    policy = policy_of("batch_table:1=7,8=3,64=0")
    found = []
    for rows in (1, 7, 8, 63, 64, 200):
        drafts = policy.plan(state_of(rows), LinearPredictor()).drafts
        assert drafts is not None
        found.append(drafts.length)
    assert found == [7, 7, 3, 3, 0, 0]


def test_local_trees_give_everybody_as_much() -> None:
    predictor = trained("linear", load_profile("qwen3-32b-h200"), 1)
    drafts = policy_of("local_tree:4").plan(state_of(6), predictor).drafts
    assert drafts is not None
    assert drafts.caps is not None
    assert set(drafts.caps.tolist()) == {4}


@pytest.mark.parametrize("quick", [True, False])
def test_every_setting_of_the_plan_can_be_run(quick: bool) -> None:
    entries = [
        *plan.main([1, 2], plan.MAIN, quick=quick),
        *plan.trees([1, 2], quick=quick),
        *plan.targets([1, 2], quick=quick),
    ]
    assert len({setting for _, setting in entries}) == len(entries)
    for _, setting in entries:
        policy_of(setting.policy)
        load = workload_of(setting)
        assert len(load.requests) == 2 * setting.load + judged_requests(setting)
        assert load.users == setting.load


def test_equal_settings_give_equal_outcomes_over_equal_work() -> None:
    first, again = run(SMALL), run(SMALL)
    assert msgspec.structs.replace(first, times_real_time=0) == msgspec.structs.replace(
        again, times_real_time=0
    )
    other = run(msgspec.structs.replace(SMALL, policy="fixed_draft:0"))
    assert other.draft_tokens_per_row == 0
    assert first.tokens_per_s > other.tokens_per_s


def test_a_level_shifts_in_mid_run() -> None:
    setting = msgspec.structs.replace(SMALL, other_level=0.2, load=40, shortened=1)
    process = workload_of(setting).acceptance
    assert process is not None
    levels = [process.mean_of(n) for n in range(40, 40 + judged_requests(setting))]
    changes = sum(a != b for a, b in itertools.pairwise(levels))
    assert changes == 1
    assert levels[0] == 0.2
    assert levels.count(0.2) == pytest.approx(len(levels) / 2, abs=1)


def figure(name: str, tokens: float) -> Figure:
    return Figure(
        name, name, tokens, (tokens, tokens), tokens, (tokens, tokens), None, None, *[1.0] * 5
    )


def grid() -> list[Cell]:
    names = [one.name for one in plan.MAIN] + [TABLE]

    def at(load: int, level: float, best: str, ours: float) -> Cell:
        figures = [figure(name, 100.0) for name in names if name not in (best, TURBOSPEC.name)]
        return Cell(
            load, level, None, [*figures, figure(best, 120.0), figure(TURBOSPEC.name, ours)]
        )

    return [
        at(1, 0.3, "fixed 1", 120.0), at(1, 0.9, "fixed 7", 132.0),
        at(8, 0.3, "none", 114.0), at(8, 0.9, "none", 120.0),
    ]  # fmt: skip


def test_headline_figures_are_what_they_are_called() -> None:
    trees = [Cell(8, 0.5, None, [figure("local 4", 100.0), figure("global 4", 110.0)])]
    found = headline(grid(), trees)
    assert found["worst_cell_vs_best_fixed"] == pytest.approx(114 / 120)
    assert found["best_single_fixed"] == best_single(grid()) == "none"
    over_none = [1.2, 1.32, 0.95, 1.0]
    assert found["vs_best_single_fixed"] == pytest.approx(math.prod(over_none) ** 0.25)
    over_table = [1.2, 1.32, 1.14, 1.2]
    assert found["vs_batch_table"] == pytest.approx(math.prod(over_table) ** 0.25)
    assert found["tree_vs_local"] == pytest.approx(1.1)


def test_the_table_is_tuned_on_each_load() -> None:
    table = tuned_table(grid())
    assert table.by_load[8] == 0
    assert table.by_load[1] in (1, 7)
    assert policy_of(table.text()).label == table.text()


def test_cells_hold_medians_over_seeds() -> None:
    def outcome(seed: int, tokens: float) -> Outcome:
        setting = msgspec.structs.replace(SMALL, seed=seed)
        means = dict.fromkeys(StepFigures.__struct_fields__, 1.0)
        return Outcome(
            setting=setting,
            tokens_per_s=tokens,
            goodput_tok_s=tokens,
            tight_attainment=None,
            tight_tpot_ms=None,
            **means,
        )

    (found,) = cells_of([(FIXED[0], outcome(seed, 10.0 * seed)) for seed in (1, 2, 9)])
    assert found.figures[0].tokens_per_s == 20.0
    assert found.figures[0].tokens_range == (10.0, 90.0)


def small(entries: Entries) -> Entries:
    """One place of a grid, with two users and few requests."""
    first = (entries[0][1].level, entries[0][1].other_level, entries[0][1].load)
    return [
        (contender, msgspec.structs.replace(setting, load=2))
        for contender, setting in entries
        if (setting.level, setting.other_level, setting.load) == first
    ]


def test_a_run_makes_a_report_a_document_and_plots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("main", "trees", "targets"):
        whole = getattr(plan, name)
        monkeypatch.setattr(plan, name, lambda *args, whole=whole, **kw: small(whole(*args, **kw)))
    with Progress(disable=True) as progress:
        report = evaluate_simulated([1], progress, quick=True)
    for key in (
        "worst_cell_vs_best_fixed", "vs_best_single_fixed", "vs_sglang_adaptive",
        "vs_batch_table", "cells", "tree_vs_local",
    ):  # fmt: skip
        assert key in report
    (tmp_path / "speculation-S.json").write_bytes(msgspec.json.encode(report))
    text = compose(tmp_path)
    assert f"{report['vs_batch_table']:.3f}" in text
    assert all(path.stat().st_size > 0 for path in plot_all(report, tmp_path / "plots"))


class SimulatedRig:
    """The simulator in the place of an engine."""

    def train(self, settings: list[Setting]) -> None:
        assert {setting.load for setting in settings} == {2}

    def run(self, setting: Setting) -> Outcome:
        return run(setting)


def test_tier_e_makes_a_report_and_a_section_and_plots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = plan.emulated
    monkeypatch.setattr(plan, "emulated", lambda *args, **kw: small(whole(*args, **kw)))
    monkeypatch.setattr(
        emulated, "speculation_rig", lambda *_: contextlib.nullcontext(SimulatedRig())
    )
    with Progress(disable=True) as progress:
        report = emulated.evaluate_emulated([1], 5.0, progress, quick=True)
    assert report["simulator_error"]["worst_pct"] == 0.0
    assert report["tree_vs_local"] is None
    (cell,) = report["cells"]
    assert [one["name"] for one in cell["figures"]] == [
        *(one.name for one in plan.ON_EMULATED), TABLE,
    ]  # fmt: skip
    text = emulated_section.section(msgspec.json.decode(msgspec.json.encode(report)))
    assert f"{report['vs_batch_table']:.3f}" in text
    assert report["arguments"]["scale"] == report["hosts"]["scale"] == 5.0
    assert len(plot_all(report, tmp_path)) == 2


def test_every_setting_of_tier_e_is_run_once_and_alike_in_both_tiers() -> None:
    entries = plan.emulated([1, 2], plan.ON_EMULATED, quick=False)
    assert len({setting for _, setting in entries}) == len(entries)
    for contender, setting in entries:
        assert setting.engine == "emulated"
        assert engine_of(setting).switch_s == 0.0
        assert policy_of(contender.policy).label == setting.policy
        assert judged_requests(setting) == max(12, 1.25 * setting.load)


def test_a_run_that_was_not_served_says_so() -> None:
    means = dict.fromkeys(StepFigures.__struct_fields__, 1.0)
    failed = [Served(n, 1, None, None, 0.0, error="HTTP 500") for n in range(40)]
    with pytest.raises(RunFailed, match=r"not served .*HTTP 500"):
        judge(SMALL, failed, StepFigures(**means))


def test_a_missing_result_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="governor eval speculation"):
        compose(tmp_path)
