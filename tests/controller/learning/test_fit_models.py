"""From steps to a folder: the split, the choice, the manifest, and ``governor fit``."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from governor_protos.messages import Hello, RequestEnd, StepFeedback
from hypothesis import given, settings
from hypothesis import strategies as st
from learning_samples import ENGINE, GRAPHS, bent, steps, straight

from controller_service.cli import main
from controller_service.commands import fit as command
from controller_service.learning.artifact import load_model
from controller_service.learning.evaluate import evaluate
from controller_service.learning.families import NotEnough, family_names
from controller_service.learning.fit import fit, split
from controller_service.learning.gather import Provenance, gather
from controller_service.learning.model import EngineKey
from controller_service.learning.regimes import is_decode, regime_keys
from controller_service.learning.samples import COLUMNS
from controller_service.logbook.book import Logbook
from controller_service.records import Expectation, StepLog

EXPECTED = Expectation(0.011, 0.013, "linear", 3, "m1")


def write_log(folder, engine_id, samples, model="a/model", ends=()):
    """A decision log as a controller writes it."""
    size = max(len(samples), len(ends), 16)
    book = Logbook(
        folder, governor_version="0.1.0", max_bytes=64 << 20, buffer_rows=size, buffers=4
    )
    book.start()
    hello = Hello(
        protocol_major=1, protocol_minor=2, engine_id=engine_id, incarnation="a",
        plugin_version="0.1.0", sglang_version="0.5.17", model=model, tp_size=1, dp_rank=0,
        overlap=True, max_running_requests=256, max_total_tokens=1 << 20,
        max_context_tokens=8192, page_size=1, chunked_prefill_tokens=-1,
        speculative_algorithm="", draft_lengths=[], knobs=["branches"],
    )  # fmt: skip
    log, clock = book.open(hello), time.monotonic()
    for step in range(len(samples)):
        feedback = StepFeedback(
            step=step,
            kind=0,
            rows=int(samples.rows[step]),
            context_tokens=int(samples.context_tokens[step]),
            prefill_tokens=0,
            latency_s=float(samples.latency_s[step]),
            outcome=0,
            parked_rows=0,
        )
        log.step(StepLog().finished(feedback, EXPECTED), clock)
    for end in ends:
        log.end(end, clock)
    book.close()
    assert sum(book.health().written.values()) == len(samples) + len(ends)


def write_samples(path, samples, engine=ENGINE):
    """A file of samples as a profile writes it."""
    told = msgspec.json.encode(Provenance(engine, GRAPHS))
    columns = {name: getattr(samples, name) for name in COLUMNS}
    np.savez(path, **columns, engine=np.frombuffer(told, dtype=np.uint8))


def run(*arguments):
    return CliRunner().invoke(main, ["fit", *map(str, arguments)])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(60, 2000))
def test_the_split_is_honest(seed, count):
    samples = steps(bent, count, seed=seed)
    parts = split(samples, seed)
    assert len(parts.train) + len(parts.held_out) + len(parts.unseen) == count
    seen, unseen = regime_keys(parts.train), regime_keys(parts.unseen)
    assert not set(seen) & set(unseen)
    assert set(regime_keys(parts.held_out)) <= set(seen)
    if len(parts.held_out):
        regimes = np.unique(regime_keys(samples)[is_decode(regime_keys(samples))])
        assert len(set(unseen)) == int(len(regimes) / 6)


def test_the_best_family_is_chosen():
    result = fit(steps(bent, 1500, seed=1), ENGINE, (), GRAPHS)
    assert [score.family for score in result.scores] == list(family_names())
    assert result.manifest.family == "boosted"
    least = min(score.error for score in result.scores)
    chosen = next(score for score in result.scores if score.family == "boosted")
    assert chosen.error <= 1.03 * least
    held_out = steps(bent, 1000, seed=2)
    error = evaluate(result.model, held_out).step_mape
    assert error == pytest.approx(chosen.holdout.step_mape, rel=0.3)  # what it says of itself


def test_the_simplest_of_equals_is_chosen():
    result = fit(steps(straight, 1500, seed=1), ENGINE, ("linear", "measured"))
    assert result.manifest.family == "linear"


def test_the_manifest_says_how_it_came_about():
    samples = steps(bent, 1000, seed=1)
    told = fit(samples, ENGINE, ("linear",), (2, 1, 1), seed=5, sources=["a", "b"]).manifest
    assert told.engine == ENGINE and told.graph_rows == (1, 2) and told.seed == 5
    assert told.data.offered == 1000 and told.data.sources == ("a", "b")
    assert told.data.regimes == len(np.unique(regime_keys(samples)))
    assert told.holdout.samples + told.holdout.unseen_samples < 500
    assert sum(one.samples for one in told.holdout.by_regime) == (
        told.holdout.samples + told.holdout.unseen_samples
    )
    assert told.holdout.unseen_mape > 0
    assert {"numpy", "lightgbm", "scikit-learn"} <= set(told.libraries)


def test_fitting_twice_gives_the_same_model():
    samples = steps(bent, 500, seed=1)
    ids = {fit(samples, ENGINE, ("boosted",), GRAPHS, 3).manifest.model_id for _ in range(2)}
    assert len(ids) == 1


def test_little_is_fitted_without_a_holdout_and_less_is_refused():
    result = fit(steps(straight, 36, seed=1), ENGINE)
    assert result.manifest.family == "linear" and result.manifest.holdout is None
    with pytest.raises(NotEnough, match="20 steps of decode alone"):
        fit(steps(straight, 20, seed=1), ENGINE)


def test_the_command_names_every_family():
    assert family_names() == command.FAMILIES


def test_from_logs_to_a_folder(tmp_path):
    samples = steps(straight, 600, seed=1)
    ends = [RequestEnd(n, 0, 100, 20 + n % 50, 128, n % 2, 1.0, 40, 30) for n in range(80)]
    write_log(tmp_path / "log", "engine-1", samples, ends=ends)
    result = run(
        tmp_path / "log", "-o", tmp_path / "model", "--family", "linear", "--json", tmp_path / "r"
    )
    assert result.exit_code == 0, result.output
    loaded = load_model(tmp_path / "model")
    assert loaded.manifest.engine.model == "a/model"
    assert loaded.manifest.data.samples == 600 and loaded.manifest.data.ends == 80
    found = evaluate(loaded.model, steps(straight, 500, seed=2, noise=0.0))
    assert found.step_mape < 0.005
    assert loaded.lengths.remaining(100, 128, 0) > 0
    assert loaded.acceptance.mean() == pytest.approx(0.75)
    report = json.loads((tmp_path / "r").read_text())
    assert report["families"][0]["family"] == "linear"
    assert report["manifest"]["model_id"] == loaded.manifest.model_id


def test_several_engines_are_named_and_one_is_chosen(tmp_path):
    write_log(tmp_path / "log", "small", steps(straight, 200, seed=1), model="a/small")
    write_log(tmp_path / "log", "large", steps(bent, 200, seed=1), model="a/large")
    refused = run(tmp_path / "log", "-o", tmp_path / "model")
    assert refused.exit_code == 1
    for told in ("small (a/small", "large (a/large", "--engine NAME"):
        assert told in refused.output
    assert not (tmp_path / "model").exists()
    chosen = run(tmp_path / "log", "-o", tmp_path / "m", "--engine", "large", "--family", "linear")
    assert chosen.exit_code == 0, chosen.output
    assert load_model(tmp_path / "m").manifest.engine.model == "a/large"
    none = run(tmp_path / "log", "-o", tmp_path / "m", "--engine", "medium")
    assert none.exit_code == 1 and "no steps of engine 'medium'" in none.output


def test_from_a_file_of_samples(tmp_path):
    write_samples(tmp_path / "samples.npz", steps(bent, 500, seed=1))
    result = run(tmp_path / "samples.npz", "-o", tmp_path / "model", "--family", "measured")
    assert result.exit_code == 0, result.output
    manifest = load_model(tmp_path / "model", ENGINE).manifest
    assert manifest.graph_rows == GRAPHS
    assert manifest.data.sources == (str(tmp_path / "samples.npz"),)


@pytest.mark.parametrize("harm", ["cut", "nameless", "pickle", "ragged"])
def test_a_damaged_file_of_samples_is_skipped_and_named(tmp_path, harm):
    path, samples = tmp_path / "samples.npz", steps(bent, 100, seed=1)
    columns = {name: getattr(samples, name) for name in COLUMNS}
    told = np.frombuffer(msgspec.json.encode(Provenance(ENGINE)), dtype=np.uint8)
    if harm == "nameless":
        np.savez(path, **columns)
    elif harm == "pickle":
        np.savez(path, **columns, engine=np.array([{"a": 1}], dtype=object))
    elif harm == "ragged":
        np.savez(path, **{**columns, "rows": samples.rows[:-1]}, engine=told)
    else:
        write_samples(path, samples)
        path.write_bytes(path.read_bytes()[:-200])
    result = run(path, "-o", tmp_path / "model")
    assert result.exit_code == 1
    assert "skipped" in result.output and "no steps in" in result.output


def test_a_wrong_source_is_one_line(tmp_path):
    result = run(tmp_path / "nothing", "-o", tmp_path / "model")
    assert result.exit_code == 1 and "no such file or folder" in result.output


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    write_samples(tmp_path / "samples.npz", steps(bent, 100, seed=1))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.odt").write_text("precious")
    result = run(tmp_path / "samples.npz", "-o", tmp_path / "home", "--family", "linear")
    assert result.exit_code == 1 and "choose another folder" in result.output
    assert (tmp_path / "home" / "thesis.odt").read_text() == "precious"


def test_many_files_are_one_fair_sample(tmp_path):
    """What is kept of two logs is what one log of all their steps would leave."""
    for index in range(2):
        write_samples(tmp_path / f"{index}.npz", steps(bent, 800, seed=index))
    other = EngineKey("model", "other", 1, "0.5.17")
    write_samples(tmp_path / "other.npz", steps(bent, 100, seed=3), other)
    read = []
    paths = [str(tmp_path / name) for name in ("0.npz", "1.npz", "other.npz")]
    kinds = gather(paths, on_file=read.append)
    assert [kind.engine for kind in kinds] == [ENGINE, other]
    assert kinds[0].buckets.offered == 1600 and kinds[0].sources == paths[:2]
    assert len(read) == 3 and not any(found.damage for found in read)


def test_help_loads_no_heavy_library():
    code = (
        "import sys; from controller_service.commands.fit import fit; "
        "sys.exit(any(name in sys.modules for name in ('lightgbm', 'sklearn', 'pyarrow')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
