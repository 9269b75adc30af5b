"""The evaluation of predictors: its arithmetic, its honesty, its documents."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from governor_bench.commands.eval import evaluate
from governor_bench.envelope import Stopwatch
from governor_bench.eval.learned import document
from governor_bench.eval.learned.data import (
    SERVED,
    SWEEP,
    regime_keys,
    regime_of,
    served,
    split,
    sweep,
)
from governor_bench.eval.learned.errors import (
    GRAPHS_AND_TILES,
    LONG_CONTEXT,
    StepErrors,
    bent_places,
    externality_error,
    step_errors,
)
from governor_bench.eval.learned.judge import EVERYWHERE, Figures, Judged, judge
from governor_bench.eval.learned.models import LINEAR, PUBLISHED, ModelPredictor, fitted
from governor_bench.eval.learned.plots import plot_all
from governor_bench.eval.learned.recovery import (
    MACHINE,
    PREDICTOR,
    Recovery,
    RecoveryTask,
    first_lasting,
    on_time_share,
    run_recovery,
)
from governor_bench.eval.learned.report import Cell, compose_report, headline
from governor_bench.eval.learned.simulated import (
    BENT,
    STRAIGHT,
    fit_tasks,
    recovery_tasks,
    truth_of,
)
from governor_bench.eval.learned.speed import CANDIDATES, predict_us
from governor_bench.eval.learned.turned import TurnedPredictor
from governor_profiles import load_profile
from governor_sim.clairvoyant import TruePredictor
from governor_sim.steps import StepSeries
from hypothesis import given, settings
from hypothesis import strategies as st

from controller_service.learning.samples import COLUMNS, Samples
from controller_service.predictors.base import StepSample

ROOT = Path(__file__).parents[2]
PROFILE = load_profile(BENT)
SAMPLES = sweep(PROFILE, 0.01, 1)


def rows_of(samples: Samples) -> set[tuple[float, ...]]:
    return set(zip(*(getattr(samples, name) for name in COLUMNS), strict=True))


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_what_is_held_out_is_not_learnt_from(seed: int) -> None:
    parts = split(SAMPLES, seed)
    everything = [parts.train, parts.held_samples, parts.held_regimes]
    assert sum(map(len, everything)) == len(SAMPLES)
    assert rows_of(Samples.join(everything)) == rows_of(SAMPLES)
    decode = parts.train.take(parts.train.prefill_tokens == 0)
    learnt = set(regime_keys(decode).tolist())
    held = set(regime_keys(parts.held_regimes).tolist())
    assert held
    assert not held & learnt
    assert (parts.held_regimes.prefill_tokens == 0).all()
    share = len(parts.held_samples) / (len(parts.train) + len(parts.held_samples))
    assert share == pytest.approx(0.2, abs=0.05)


def test_a_regime_holds_the_steps_that_its_name_says() -> None:
    batch = Samples(
        np.array([1.0, 9.0, 16.0, 17.0]), np.array([4096.0, 4097.0, 8192.0, 8193.0]),
        *(np.zeros(4), np.zeros(4), np.ones(4)),
    )  # fmt: skip
    names = [regime_of(key).name for key in regime_keys(batch)]
    assert names == [
        "rows 1, context 2049-4096",
        "rows 9-16, context 4097-8192",
        "rows 9-16, context 4097-8192",
        "rows 17-32, context 8193-16384",
    ]


def test_the_sweep_measures_the_profile_with_its_noise() -> None:
    truth = TruePredictor(PROFILE).predict(
        SAMPLES.rows, SAMPLES.context_tokens, SAMPLES.prefill_tokens
    )
    off = SAMPLES.latency_s / truth - 1.0
    assert off.std() == pytest.approx(0.01, rel=0.1)
    assert SAMPLES.context_tokens.max() < PROFILE.kv_tokens
    sizes = set(SAMPLES.rows[SAMPLES.prefill_tokens == 0].astype(int).tolist())
    assert {8, 9, 64, 65, 128, 129} <= sizes, "both sides of a graph's size"


def test_served_traffic_shows_many_widths() -> None:
    samples = served(PROFILE, 0.01, 1, seconds=4.0, load=3.0, slo_ms=50.0)
    decode = samples.take(samples.prefill_tokens == 0)
    assert len(np.unique(decode.rows)) > 8
    assert len(samples) > len(decode) > 100


class Exact(TruePredictor):
    family = "true"

    def files(self) -> dict[str, bytes]:
        return {}


def test_the_truth_has_no_error_beyond_the_noise() -> None:
    truth = Exact(PROFILE, 0.01)
    decode = SAMPLES.take(SAMPLES.prefill_tokens == 0)
    errors = step_errors(truth, decode)
    assert errors.mape == pytest.approx(0.01 * np.sqrt(2 / np.pi), rel=0.1)
    assert errors.p90_coverage == pytest.approx(0.9, abs=0.02)
    assert externality_error(truth, truth, decode.rows, decode.context_tokens) == 0.0


def test_an_externality_that_is_half_of_the_true_one_is_off_by_half() -> None:
    truth = Exact(PROFILE)

    class Half(Exact):
        def predict(self, rows, context_tokens, prefill_tokens=0.0, draft_tokens=0.0):
            return 1.0 + super().predict(rows, context_tokens, prefill_tokens, draft_tokens) / 2

    rows, context = np.arange(1.0, 60.0), 1000.0 * np.arange(1.0, 60.0)
    assert externality_error(Half(PROFILE), truth, rows, context) == pytest.approx(0.5)
    assert externality_error(Half(PROFILE), truth, rows[:5], context[:5]) is None


def test_places_where_the_cost_bends() -> None:
    rows, context = np.array([4.0, 4.0, 255.0]), np.array([1e3, 2e5, 1e3])
    places = bent_places(rows, context, PROFILE.graph_rows, 120_000)
    assert places[GRAPHS_AND_TILES].tolist() == [True, False, False]
    assert places[LONG_CONTEXT].tolist() == [False, True, False]
    assert bent_places(rows, context, (), 0) == {}


@pytest.fixture(scope="module")
def judged() -> Judged:
    return judge(SAMPLES, truth_of(BENT), 1)[0]


def test_every_model_is_judged_by_the_same_steps(judged: Judged) -> None:
    assert {one.model for one in judged.figures} >= {PUBLISHED, LINEAR, "boosted"}
    assert len({one.held_regimes.samples for one in judged.figures}) == 1
    assert judged.chosen in {one.model for one in judged.figures} - {PUBLISHED}
    for one in judged.figures:
        assert {item.name for item in one.regimes if item.held_out} == set(judged.held_regimes)
        assert set(one.externality) == {EVERYWHERE, GRAPHS_AND_TILES, LONG_CONTEXT}


def test_what_learns_the_bends_beats_the_line_where_it_bends(judged: Judged) -> None:
    """The aims, on one seed."""
    mine, line = judged.of(judged.chosen), judged.of(LINEAR)
    assert mine.held_regimes.mape <= 0.018
    for place in (GRAPHS_AND_TILES, LONG_CONTEXT):
        assert 2 * mine.externality[place] <= line.externality[place], place


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 10))
def test_a_recovery_lasts(good: list[bool], steps: int) -> None:
    found = first_lasting(np.array(good, dtype=bool), steps)
    lasting = [start for start in range(len(good) - steps + 1) if all(good[start : start + steps])]
    assert found == (lasting[0] if lasting else None)


def test_tokens_count_as_late_by_the_rows_of_their_step() -> None:
    steps = StepSeries()
    for end_s, rows, prefill in (
        (0.02, 10, 0), (0.06, 10, 0), (0.50, 1, 4000), (0.90, 30, 0), (0.92, 30, 0),
    ):  # fmt: skip
        steps.add(
            end_s, 0.0, rows=rows, parked=0, extra=0, prefill_tokens=prefill, context_tokens=1,
            decoding=0 if prefill else rows,
        )  # fmt: skip
    share = on_time_share(steps, slo_ms=30.0)
    # Judged: the second step (late, 10 rows) and the fifth (in time, 30 rows).
    assert share[-1] == pytest.approx(0.75)
    assert share[1] == 0.0


def test_a_turned_predictor_is_right_before_and_wrong_after() -> None:
    right = ModelPredictor(Exact(PROFILE))
    turned = TurnedPredictor(right, at_step=3, factor=2.0)
    truth = right.predict(8.0, 8e3)
    said = []
    for _ in range(4):
        said.append(turned.predict(8.0, 8e3) / truth)
        turned.observe(StepSample(8, 8000, 0, truth))
    assert said == pytest.approx([1.0, 1.0, 2.0, 2.0])
    assert turned.version == right.version


@pytest.mark.parametrize(("changes", "factor"), [(MACHINE, 2.0), (PREDICTOR, 0.5)])
def test_what_is_corrected_recovers_within_200_steps_and_what_is_not_does_not(
    changes: str, factor: float
) -> None:
    task = RecoveryTask(
        STRAIGHT,
        ("linear", "corrected-linear"),
        "taper",
        changes,
        factor,
        seed=2,
        load=24.0,
        seconds=30.0,
        change_at_step=400,
    )
    plain, corrected = run_recovery(task)
    assert plain.error_steps is None
    assert corrected.error_steps is not None
    assert corrected.error_steps <= 100
    assert corrected.attainment_steps is not None
    assert corrected.attainment_steps <= 200
    assert max(corrected.error_curve[:22]) < 0.05, "it was right before the change"


def test_asking_is_timed_for_every_model() -> None:
    line = fitted(PUBLISHED, SAMPLES, ())
    taken = predict_us({PUBLISHED: line, LINEAR: fitted(LINEAR, SAMPLES, ())}, rounds=2)
    for mine in taken.values():
        assert set(mine) == {*map(str, CANDIDATES), "vs_linear"}
        assert min(mine.values()) > 0
    assert taken[PUBLISHED]["vs_linear"] == 1.0


def test_quick_is_a_part_of_the_whole() -> None:
    assert len(fit_tasks([1], quick=True)) < len(fit_tasks([1], quick=False))
    assert len(recovery_tasks([1], quick=True)) < len(recovery_tasks([1], quick=False))
    sources = {(task.profile, task.source) for task in fit_tasks([1, 2, 3], quick=False)}
    assert sources == {(name, how) for name in (STRAIGHT, BENT) for how in (SWEEP, SERVED)}
    changes = {(task.changes, task.factor) for task in recovery_tasks([1], quick=False)}
    assert changes == {(what, by) for what in (MACHINE, PREDICTOR) for by in (0.5, 2.0)}


def figures(model: str, mape: float, coverage: float, error: float | None) -> Figures:
    steps = StepErrors(100, mape, mape, coverage)
    places: dict[str, float | None] = {EVERYWHERE: 9.0, LONG_CONTEXT: error}
    return Figures(model, steps, steps, steps, places, [], [(10.0, 10.1)], 0.0)


def cell(name: str, seed: int, mape: float, coverage: float, error: float | None) -> Cell:
    mine, line = figures("boosted", mape, coverage, error), figures(LINEAR, 0.05, 0.9, 0.6)
    judged = Judged("boosted", [line, mine], 100, [])
    return Cell(name, seed, error is not None, judged)


def recovery(predictor: str, error: int | None, attainment: int | None) -> Recovery:
    task = RecoveryTask(BENT, (predictor,), "taper", MACHINE, 2.0, 1)
    return Recovery(predictor, task, error, attainment, [], [], [], 0.0)


def test_the_headline_is_the_worst_of_what_would_be_chosen() -> None:
    cells = [
        cell("a", 1, 0.01, 0.95, None),
        cell("a", 2, 0.02, 0.87, 0.1),
        cell("b", 1, 0.01, 0.89, 0.2),
    ]
    found = headline(cells, [recovery("linear", None, None), recovery("corrected-linear", 20, 150)])
    assert found["step_mape"] == 0.02
    assert found["linear_step_mape"] == 0.05
    assert found["step_p90_coverage"] == pytest.approx(0.91), "the seeds of a cell together"
    assert found["externality_error"] == 0.2
    assert found["externality_times_better"] == pytest.approx(3.0)
    assert found["recovery_steps"] == 150, "what is not corrected does not count"
    never = headline(cells, [recovery("corrected-linear", 20, None)])
    assert never["recovery_steps"] is None
    assert never["recovery_steps_error"] == 20


def small_report(judged: Judged, tier: str) -> dict:
    curve = [0.1] * 600
    one = msgspec.structs.replace(
        recovery("corrected-linear", 20, 60),
        error_curve=curve,
        attainment_curve=curve,
        right_attainment_curve=curve,
    )
    speed = {model.model: {**dict.fromkeys(map(str, CANDIDATES), 5.0), "vs_linear": 2.0}
             for model in judged.figures}  # fmt: skip
    report = compose_report(
        tier=tier,
        cells=[Cell(f"{BENT}, {SWEEP}", 1, True, judged)],
        recovered=[one] if tier == "S" else [],
        speed=speed,
        seeds=[1],
        arguments={"quick": True},
        stopwatch=Stopwatch(),
    )
    return json.loads(msgspec.json.encode(report))


def test_plots_and_document_are_made_from_the_report_alone(judged: Judged, tmp_path: Path) -> None:
    results, target = tmp_path / "results", tmp_path / "docs/predictors.md"
    results.mkdir()
    with pytest.raises(FileNotFoundError, match="governor eval predictors"):
        document.compose(results)
    for tier in ("S", "E"):
        path = results / document.result_file(tier)
        path.write_text(json.dumps(small_report(judged, tier)))
    document.write(results, target)
    text = target.read_text()
    assert text == document.compose(results)
    assert "| not within the run |" not in text
    for link in [line for line in text.splitlines() if line.startswith("![")]:
        picture = target.parent / link.partition("(")[2].rstrip(")")
        assert picture.stat().st_size > 5_000, link
    assert "S/recovery.png" in text
    assert "E/recovery.png" not in text
    drawn = {path.name for path in plot_all(small_report(judged, "S"), tmp_path / "plots")}
    assert drawn == {f"{name}.png" for name in document.PLOTS}


def test_the_committed_document_says_what_the_committed_results_say() -> None:
    results = ROOT / "benchmarks/results"
    if not any((results / document.result_file(tier)).exists() for tier in document.TIERS):
        pytest.skip("no results of predictors yet")
    assert (ROOT / "docs/results/predictors.md").read_text() == document.compose(results)


def test_the_command_says_what_it_takes() -> None:
    result = CliRunner().invoke(evaluate, ["predictors", "--tier", "G"])
    assert result.exit_code == 2
    assert "'S', 'E', 'C'" in result.output
