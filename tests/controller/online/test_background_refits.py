"""Fits in a process of their own: what comes back, and what may go wrong."""

from __future__ import annotations

import json
import subprocess
import sys

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from online_builders import HERE, feed, median_error, steps

from controller_service.learning import refit
from controller_service.learning.refit import BackgroundRefits, RefitFailed, RefitJob, better
from controller_service.learning.sample_file import BadSampleFile, load_samples, save_samples
from controller_service.learning.samples import Samples
from controller_service.predictors.learned import LearnedPredictor, LearningHome
from controller_service.predictors.registry import make_predictor

PATIENCE_S = 120.0


def line_of(count: int = 600):
    predictor = make_predictor("linear")
    feed(predictor, steps(count))
    return predictor.incumbent()


def job(family: str = "measured", train: int = 1500) -> RefitJob:
    return RefitJob(
        family,
        Samples.of(steps(train)),
        Samples.of(steps(400, seed=8)),
        HERE,
        (),
        line_of(),
    )


@pytest.fixture
def refits():
    background = BackgroundRefits()
    yield background
    background.close()


def test_a_model_comes_back_and_is_judged(refits) -> None:
    outcome = refits.start(job()).result(PATIENCE_S)
    assert outcome.result == "promoted", outcome.reason
    assert outcome.candidate.model.family == "measured"
    assert len(outcome.candidate.model_id) >= 4


def test_one_at_a_time(refits) -> None:
    first = refits.start(job())
    assert refits.start(job()) is None
    first.result(PATIENCE_S)
    second = refits.start(job())
    assert second.result(PATIENCE_S).result == "promoted"


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (job("no such family"), "no family"),
        (job(train=5), "decode"),
    ],
)
def test_a_failing_process_says_why(refits, broken, told) -> None:
    outcome = refits.start(broken).result(PATIENCE_S)
    assert (outcome.result, outcome.candidate) == ("failed", None)
    assert told in outcome.reason


def test_a_process_that_takes_too_long_is_ended() -> None:
    refits = BackgroundRefits(time_limit_s=0.01)
    outcome = refits.start(job()).result(PATIENCE_S)
    assert outcome.result == "failed" and "not done within 0.01 s" in outcome.reason
    assert refits.start(job()) is not None
    refits.close()


def test_a_process_that_cannot_be_started_is_a_failed_fit(refits, monkeypatch) -> None:
    monkeypatch.setattr(refit.sys, "executable", "/nowhere/python")
    outcome = refits.start(job()).result(PATIENCE_S)
    assert outcome.result == "failed" and "No such file" in outcome.reason


def test_closing_ends_the_process(refits) -> None:
    future = refits.start(job())
    refits.close()
    assert future.result(PATIENCE_S).result == "failed"
    assert refits.start(job()) is None


def test_too_few_steps_held_out_say_nothing() -> None:
    few = Samples.of(steps(20))
    with pytest.raises(RefitFailed, match="too few measured steps to compare models: 20"):
        better(line_of(), line_of(), few)


def test_end_to_end_with_simulated_feedback(refits) -> None:
    predictor = LearnedPredictor("measured", LearningHome("e1", HERE, refits=refits))
    line = make_predictor("linear")
    now_s = feed(predictor, steps(600))
    feed(line, steps(600))
    predictor._fitting.result(PATIENCE_S)
    feed(predictor, steps(5, seed=3), now_s)
    assert predictor.model_id
    fresh = list(steps(300, seed=77))
    assert median_error(predictor, fresh) < median_error(line, fresh)


def test_the_process_refuses_a_file_that_holds_no_samples(tmp_path) -> None:
    bad = tmp_path / "samples.npz"
    bad.write_bytes(b"PK\x03\x04 nonsense")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "controller_service.learning.background"),
            *(str(bad), str(tmp_path / "out"), "--family", "measured"),
            *("--engine", json.dumps(msgspec.to_builtins(HERE))),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "not a file of samples" in done.stderr
    assert not (tmp_path / "out").exists()


def test_samples_survive_their_file(tmp_path) -> None:
    samples = Samples.of(steps(100))
    save_samples(tmp_path / "samples.npz", samples)
    loaded = load_samples(tmp_path / "samples.npz")
    np.testing.assert_array_equal(loaded.latency_s, samples.latency_s)
    np.testing.assert_array_equal(loaded.rows, samples.rows)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    path = tmp_path_factory.mktemp("samples") / "samples.npz"
    save_samples(path, Samples.of(steps(20)))
    return path.read_bytes()


@given(st.data())
def test_a_damaged_file_is_refused_or_harmless(stored, tmp_path_factory, data) -> None:
    cut = data.draw(st.integers(0, len(stored)))
    damaged = bytearray(stored[:cut])
    for _ in range(data.draw(st.integers(0, 3))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(
                st.integers(0, 7)
            )
    path = tmp_path_factory.mktemp("damaged") / "samples.npz"
    path.write_bytes(bytes(damaged))
    try:
        loaded = load_samples(path)
    except BadSampleFile:
        return
    assert len(loaded) <= 20
