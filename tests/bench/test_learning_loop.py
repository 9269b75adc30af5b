"""The loop from log to model and back: damaged models, and the whole of it around an engine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from governor_bench.commands.learning import faults
from governor_bench.learning.damage import DAMAGES

from controller_service.cli import main
from controller_service.learning.artifact import ModelRefused, load_model, save_model
from controller_service.learning.fit import fit
from controller_service.learning.model import EngineKey
from controller_service.learning.regimes import Buckets
from controller_service.learning.samples import Samples

ENGINE = EngineKey("model", "device", 1, "0.5.17")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that is as it should be."""
    rng = np.random.default_rng(1)
    rows = rng.integers(1, 64, 800).astype(float)
    context = rows * rng.integers(100, 2000, 800)
    none = np.zeros(800)
    buckets = Buckets(seed=1)
    buckets.add(Samples(rows, context, none, none, 0.01 + 1e-4 * rows + 1e-8 * context))
    result = fit(buckets, ENGINE, ("measured",))
    folder = tmp_path_factory.mktemp("models") / "sound"
    save_model(folder, result.model, result.manifest, result.extras)
    load_model(folder, ENGINE)
    return folder


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_damage_makes_a_model_that_is_refused(
    sound: Path, damage: str, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(sound, copy)
    DAMAGES[damage](copy)
    with pytest.raises(ModelRefused) as refused:
        load_model(copy, ENGINE)
    if damage == "of another version":
        assert refused.value.reason == "schema_version"
    if damage == "of another engine":
        assert refused.value.reason == "engine"
        load_model(copy)  # it is sound in itself


@pytest.mark.engine
def test_the_whole_loop_around_a_live_engine(tmp_path: Path) -> None:
    target = tmp_path / "learning.json"
    ended = CliRunner().invoke(main, ["check", "learning", "--quick", "--json", str(target)])
    assert ended.exit_code == 0, ended.output
    report = json.loads(target.read_text())
    assert not faults(report)
    assert report["governed_steps"] > 0
