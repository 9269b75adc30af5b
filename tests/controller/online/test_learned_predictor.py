"""A predictor that takes models: by itself, from others, and gives them back."""

from __future__ import annotations

import itertools
from concurrent.futures import Future

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from online_builders import HERE, bent_s, feed, median_error, steps

from controller_service.learning.counts import LearningCounts
from controller_service.learning.fit import fit
from controller_service.learning.refit import RefitOutcome
from controller_service.learning.samples import Samples
from controller_service.predictors.base import StepSample, marginal_s
from controller_service.predictors.candidate import Candidate, prepare
from controller_service.predictors.corrected import CorrectedPredictor
from controller_service.predictors.learned import (
    LearnedPredictor,
    LearningHome,
    NothingToRollBack,
)
from controller_service.predictors.registry import make_predictor


class Scripted:
    """Refits whose outcome the test decides."""

    def __init__(self) -> None:
        self.jobs = []
        self.busy = False

    def start(self, job):
        if self.busy:
            return None
        self.jobs.append(job)
        self.future: Future[RefitOutcome] = Future()
        return self.future


def candidate(factor: float = 1.0, seed: int = 9) -> Candidate:
    result = fit(Samples.of(steps(3000, seed=seed, factor=factor)), HERE, ("measured",))
    return prepare(result.model, result.manifest.model_id)


@pytest.fixture(scope="module")
def right() -> Candidate:
    return candidate()


@pytest.fixture(scope="module")
def wrong() -> Candidate:
    return candidate(factor=1.5)


@pytest.mark.parametrize("family", ["boosted", "extra_trees", "measured"])
def test_it_fits_a_model_of_its_own_and_does_better_by_it(family: str) -> None:
    predictor = make_predictor(family)
    line = make_predictor("linear")
    feed(line, steps(2500))
    feed(predictor, steps(2500))
    assert predictor.model is not None and predictor.model.model.family == family
    assert predictor.home.counts.refits["promoted"] >= 1
    fresh = list(steps(400, seed=77))
    assert median_error(predictor, fresh) < 0.6 * median_error(line, fresh)


def test_it_keeps_its_line_when_a_model_is_no_better() -> None:
    predictor = make_predictor("measured")
    straight = steps(1500, truth=lambda rows, context: 0.007 + 4e-5 * rows + 1.4e-8 * context)
    feed(predictor, straight)
    assert predictor.model is None
    assert set(predictor.home.counts.refusals) == {"not_better"}


@given(st.integers(0, 400), st.integers(0, 1 << 20), st.lists(st.integers(0, 8192), min_size=1))
def test_no_row_has_a_negative_cost_by_a_corrected_model(rows, context, candidates) -> None:
    predictor = _corrected()
    cost = marginal_s(predictor, rows, context, np.array(candidates, dtype=np.float64))
    assert (cost >= 0).all()


@given(st.lists(st.tuples(st.integers(1, 300), st.floats(1e-3, 0.1)), max_size=60))
def test_a_corrected_model_never_falls(measured) -> None:
    predictor = CorrectedPredictor(_learned_with(_right_once()))
    for rows, latency_s in measured:
        predictor.observe(StepSample(rows, 1000 * rows, 0, latency_s))
    for context in (0.0, 50_000.0, 1e6):
        by_rows = predictor.predict(np.arange(0.0, 400.0), np.full(400, context))
        assert (np.diff(by_rows) >= 0).all()
        assert (by_rows > 0).all()


def test_a_model_predicts_from_the_moment_it_is_installed(right: Candidate) -> None:
    predictor = LearnedPredictor()
    assert not predictor.fitted
    predictor.install(right, "test")
    assert predictor.fitted and predictor.model_id == right.model_id
    assert predictor.predict(100.0, 1e5) == pytest.approx(float(bent_s(100, 1e5)), rel=0.05)


def test_a_correction_starts_anew_with_the_model(right: Candidate, wrong: Candidate) -> None:
    inner = LearnedPredictor()
    predictor = CorrectedPredictor(inner)
    feed(predictor, steps(300))
    inner.install(wrong, "test")
    predictor.catch_up()
    assert predictor.correction_ratio == pytest.approx(1 / 1.5, rel=0.05)
    assert median_error(predictor, steps(200, seed=5)) < 0.05


def test_a_model_that_does_worse_is_taken_back_and_remembered(wrong: Candidate) -> None:
    predictor = LearnedPredictor()
    now_s = feed(predictor, steps(300))
    predictor.install(wrong, "test")
    assert predictor.watched
    feed(predictor, steps(100, seed=4), now_s)
    assert predictor.model is None
    assert predictor.home.counts.rollbacks == 1
    assert wrong.model_id in predictor.home.bad
    assert median_error(predictor, steps(200, seed=5)) < 0.2


def test_a_model_that_does_well_passes_its_probation(right: Candidate) -> None:
    predictor = LearnedPredictor()
    now_s = feed(predictor, steps(300))
    predictor.install(right, "test")
    feed(predictor, steps(600, seed=4), now_s)
    assert predictor.model is right
    assert not predictor.watched


def test_a_few_stalls_do_not_end_a_good_model(right: Candidate) -> None:
    predictor = LearnedPredictor()
    now_s = feed(predictor, steps(300))
    predictor.install(right, "test")
    for count, sample in enumerate(steps(600, seed=4)):
        stall = 30.0 if count % 40 == 3 else 1.0
        slow = StepSample(sample.rows, sample.context_tokens, 0, sample.latency_s * stall)
        now_s = feed(predictor, [slow], now_s)
    assert predictor.model is right


def test_rolling_back_goes_to_what_was_before(right: Candidate, wrong: Candidate) -> None:
    predictor = LearnedPredictor()
    predictor.install(right, "test")
    predictor.install(wrong, "test")
    assert predictor.previous is right
    assert predictor.roll_back("asked to") is wrong
    assert predictor.model is right
    predictor.roll_back("asked to")
    assert predictor.model is None
    with pytest.raises(NothingToRollBack):
        predictor.roll_back("asked to")


def test_a_model_that_was_rolled_back_is_not_promoted_again_by_itself(wrong: Candidate) -> None:
    refits = Scripted()
    counts = LearningCounts()
    predictor = LearnedPredictor("measured", LearningHome(refits=refits, counts=counts))
    predictor.home.bad[wrong.model_id] = None
    now_s = feed(predictor, steps(600))
    refits.future.set_result(RefitOutcome("promoted", "better", wrong))
    feed(predictor, steps(10), now_s)
    assert predictor.model is None
    assert counts.refusals == {"rolled_back": 1}


def test_a_fit_that_fails_is_counted_and_told_once(caplog) -> None:
    refits = Scripted()
    predictor = LearnedPredictor("measured", LearningHome("e1", refits=refits))
    now_s = feed(predictor, steps(600))
    for _ in range(2):
        refits.future.set_result(RefitOutcome("failed", "no memory"))
        now_s = feed(predictor, steps(1), now_s)
        now_s = feed(predictor, steps(8300), now_s)
    assert predictor.home.counts.refits == {"failed": 2}
    assert [record.message for record in caplog.records if "no memory" in record.message] == [
        "engine e1: no model: no memory"
    ]


def test_a_busy_neighbour_is_waited_for() -> None:
    refits = Scripted()
    refits.busy = True
    predictor = LearnedPredictor("measured", LearningHome(refits=refits))
    now_s = feed(predictor, steps(600))
    assert refits.jobs == []
    refits.busy = False
    feed(predictor, steps(40), now_s)
    assert len(refits.jobs) == 1


def test_what_is_held_out_is_never_trained_on() -> None:
    refits = Scripted()
    predictor = LearnedPredictor("measured", LearningHome(refits=refits))
    feed(predictor, steps(600))
    (job,) = refits.jobs
    assert 0.1 < len(job.held_out) / (len(job.train) + len(job.held_out)) < 0.35
    assert not set(job.held_out.latency_s) & set(job.train.latency_s)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_changed_machine_asks_for_a_refit_with_samples_of_one_machine(right, factor) -> None:
    refits = Scripted()
    counts = LearningCounts()
    predictor = LearnedPredictor("measured", LearningHome(refits=refits, counts=counts))
    now_s = feed(predictor, steps(600))
    refits.future.set_result(RefitOutcome("promoted", "better", right))
    now_s = feed(predictor, steps(700, seed=3), now_s)
    assert (counts.drifts, len(refits.jobs)) == (0, 2)
    refits.future.set_result(RefitOutcome("refused", "no better"))
    feed(predictor, steps(400, seed=6, factor=factor), now_s)
    assert (counts.drifts, len(refits.jobs)) == (1, 3)
    held = refits.jobs[2].train
    ratio = held.latency_s / bent_s(held.rows, held.context_tokens)
    assert np.quantile(ratio, 0.1) > 0.9 * factor
    assert np.quantile(ratio, 0.9) < 1.1 * factor


@pytest.mark.parametrize("factor", [0.5, 2.0])
@pytest.mark.parametrize("name", ["corrected-measured", "measured"])
def test_it_recovers_from_another_machine(name: str, factor: float) -> None:
    predictor = make_predictor(name)
    now_s = feed(predictor, steps(800))
    assert predictor.model_id
    now_s = feed(predictor, steps(60, seed=2, factor=factor), now_s)
    if name.startswith("corrected"):
        assert median_error(predictor, steps(200, seed=4, factor=factor)) < 0.05
    now_s = feed(predictor, steps(1000, seed=3, factor=factor), now_s)
    assert median_error(predictor, steps(200, seed=4, factor=factor)) < 0.03
    assert predictor.predict_p90(64.0, 64e3) >= predictor.predict(64.0, 64e3)


_CACHE: dict[str, Candidate] = {}


def _right_once() -> Candidate:
    if "right" not in _CACHE:
        _CACHE["right"] = candidate()
    return _CACHE["right"]


def _learned_with(model: Candidate) -> LearnedPredictor:
    predictor = LearnedPredictor()
    predictor.install(model, "test")
    return predictor


def _corrected() -> CorrectedPredictor:
    predictor = CorrectedPredictor(_learned_with(_right_once()))
    for sample in itertools.islice(steps(50, factor=1.2), 50):
        predictor.observe(sample)
    return predictor
