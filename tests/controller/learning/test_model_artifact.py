"""A model on disk: loaded only if everything agrees."""

from __future__ import annotations

import hashlib
import os

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from learning_samples import ENGINE, GRAPHS, bent, steps

from controller_service.learning import artifact, manifest
from controller_service.learning.artifact import ModelRefused, load_model, save_model
from controller_service.learning.fit import fit
from controller_service.learning.model import EngineKey

FAMILIES = ("linear", "boosted", "measured")


@pytest.fixture(scope="module")
def results():
    samples = steps(bent, 700, seed=1)
    return {name: fit(samples, ENGINE, (name,), GRAPHS) for name in FAMILIES}


@pytest.fixture(scope="module")
def folders(results, tmp_path_factory):
    """One saved model a family, which no test may change."""
    root = tmp_path_factory.mktemp("models")
    for name, result in results.items():
        save_model(root / name, result.model, result.manifest)
    return root


@pytest.fixture
def saved(results, tmp_path):
    """A model that a test may harm."""
    result = results["linear"]
    save_model(tmp_path / "model", result.model, result.manifest)
    return tmp_path / "model"


def refusal(folder, engine=None):
    with pytest.raises(ModelRefused) as caught:
        load_model(folder, engine)
    return caught.value


def reseal(folder, **changes):
    """Change the manifest as somebody would who knows how it is sealed."""
    path = folder / "manifest.json"
    found = msgspec.json.decode(path.read_bytes(), type=manifest.Manifest)
    path.write_bytes(manifest.seal(msgspec.structs.replace(found, **changes)))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_comes_back(results, folders, name):
    loaded = load_model(folders / name, ENGINE)
    some = steps(bent, 100, seed=2)
    expected = results[name].model.predict(some.rows, some.context_tokens)
    assert np.array_equal(loaded.model.predict(some.rows, some.context_tokens), expected)
    assert loaded.manifest.family == name
    assert loaded.manifest.engine == ENGINE
    assert loaded.manifest.model_id == results[name].manifest.model_id


def test_no_pickle_and_nothing_else_in_the_folder(folders):
    names = {path.name for path in (folders / "boosted").iterdir()}
    assert names == {"manifest.json", "backbone.npz", "residual.txt", "p90.txt"}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_changed_byte_is_refused(folders, data):
    """Flipped or cut, anywhere in any file: refused, and nothing else is raised."""
    source = folders / data.draw(st.sampled_from(FAMILIES))
    name = data.draw(st.sampled_from(sorted(path.name for path in source.iterdir())))
    content = (source / name).read_bytes()
    if not content:
        return
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        changed = content[:at]
    else:
        bits = data.draw(st.integers(1, 255))
        changed = content[:at] + bytes([content[at] ^ bits]) + content[at + 1 :]
    harmed = folders.parent / "harmed"
    harmed.mkdir(exist_ok=True)
    for old in harmed.iterdir():
        old.unlink()
    for path in source.iterdir():
        (harmed / path.name).write_bytes(changed if path.name == name else path.read_bytes())
    with pytest.raises(ModelRefused) as caught:
        load_model(harmed, ENGINE)
    if name != "manifest.json":
        assert caught.value.reason == "hash"


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_for_a_manifest_are_refused(folders, content):
    harmed = folders.parent / "no-manifest"
    harmed.mkdir(exist_ok=True)
    (harmed / "manifest.json").write_bytes(content)
    refusal(harmed)


def test_missing(saved, tmp_path):
    assert refusal(tmp_path / "nothing").reason == "missing"
    (saved / "line.npz").unlink()
    assert refusal(saved).reason == "missing"


@pytest.mark.parametrize("field", ["model", "device", "tp_size", "sglang_version"])
def test_another_engine(saved, field):
    other = msgspec.structs.replace(ENGINE, **{field: 2 if field == "tp_size" else "other"})
    found = refusal(saved, other)
    assert found.reason == "engine"
    assert "model on device, tp 1, SGLang 0.5.17" in str(found)
    assert load_model(saved).manifest.engine == ENGINE


def test_another_version(saved):
    reseal(saved, schema_version=2)
    found = refusal(saved)
    assert found.reason == "schema_version"
    assert "2" in str(found) and "fit the model again" in str(found)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"family": "oracle"}, "family"),
        ({"family": "measured", "features": ("rows",)}, "features"),
        ({"features": ("rows", "phase_of_the_moon")}, "features"),
        ({"libraries": {"numpy": "1.26.0"}}, "library"),
        ({"libraries": {}}, "library"),
    ],
)
def test_a_manifest_that_this_governor_cannot_use(saved, changes, reason):
    reseal(saved, **changes)
    assert refusal(saved).reason == reason


@pytest.mark.parametrize("name", ["../line.npz", "/etc/hostname", "a/b.npz", "manifest.json", ""])
def test_files_elsewhere(saved, name):
    entry = manifest.FileEntry(name, 4, hashlib.sha256(b"root").hexdigest())
    reseal(saved, files=(entry,))
    assert refusal(saved).reason == "not_a_manifest"


def test_links_and_pipes(saved, tmp_path):
    inside = saved / "line.npz"
    inside.rename(tmp_path / "elsewhere.npz")
    inside.symlink_to(tmp_path / "elsewhere.npz")
    assert refusal(saved).reason == "unreadable"
    inside.unlink()
    os.mkfifo(inside)  # whoever waited for its writer would wait forever
    assert refusal(saved).reason == "unreadable"


def test_too_large(saved):
    with (saved / "line.npz").open("r+b") as file:
        file.truncate(artifact.MAX_FILE_BYTES + 1)
    assert refusal(saved).reason == "too_large"
    (saved / "manifest.json").write_bytes(b" " * (artifact.MAX_MANIFEST_BYTES + 1))
    assert refusal(saved).reason == "too_large"


def test_whole_files_that_hold_no_model(saved):
    content = b"not an archive"
    (saved / "line.npz").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    reseal(saved, files=(manifest.FileEntry("line.npz", len(content), digest),))
    assert refusal(saved).reason == "unreadable"


def test_a_model_is_replaced_and_nothing_else_is(results, saved, tmp_path):
    result = results["measured"]
    save_model(saved, result.model, result.manifest)
    assert load_model(saved).manifest.family == "measured"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    (saved / "thesis.odt").write_text("precious")
    with pytest.raises(FileExistsError, match="choose another folder"):
        save_model(saved, result.model, result.manifest)
    assert (saved / "thesis.odt").read_text() == "precious"


def test_a_save_that_fails_leaves_the_old_model(results, saved, tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artifact, "_write", full)
    with pytest.raises(OSError, match="No space"):
        save_model(saved, results["measured"].model, results["measured"].manifest)
    assert load_model(saved).manifest.family == "linear"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_model_and_manifest_must_belong_together(results, tmp_path):
    with pytest.raises(ValueError, match="does not describe"):
        save_model(tmp_path / "model", results["linear"].model, results["measured"].manifest)


def test_equal_models_have_equal_ids():
    samples = steps(bent, 300, seed=3)
    ids = [
        fit(samples, engine, ("linear",), GRAPHS).manifest.model_id
        for engine in (ENGINE, ENGINE, EngineKey("model", "other", 1, "0.5.17"))
    ]
    assert ids[0] == ids[1] != ids[2]
