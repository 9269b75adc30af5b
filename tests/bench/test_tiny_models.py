"""The tiny models: one set of weights a recipe, and nothing half-made in the cache."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from governor_bench.tiny_models import Recipe, TinyModels, cache, tiny_models
from governor_bench.tiny_models.corpus import functions
from governor_bench.tiny_models.recipe import Shape

MINI = Recipe(
    target=Shape(2, 32, 64, 2, 1, 16),
    trained_layers=1,
    draft=Shape(1, 16, 32, 2, 1, 8),
    vocab_size=300,
    max_position_embeddings=128,
    functions=20,
    steps=3,
    batch_rows=2,
    row_tokens=16,
)


def digest(models: TinyModels) -> dict[str, str]:
    return {
        f"{folder.name}/{file.name}": hashlib.sha256(file.read_bytes()).hexdigest()
        for folder in (models.target, models.draft)
        for file in sorted(folder.iterdir())
    }


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    "changed",
    [
        replace(MINI, seed=1),
        replace(MINI, steps=4),
        replace(MINI, draft=replace(MINI.draft, layers=2)),
    ],
)
def test_key_changes_with_the_recipe(changed: Recipe) -> None:
    assert cache.recipe_key(MINI) == cache.recipe_key(replace(MINI))
    assert cache.recipe_key(MINI) != cache.recipe_key(changed)


def test_key_changes_with_the_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache.recipe_key(MINI)
    monkeypatch.setattr(cache, "version", lambda package: "0")
    assert cache.recipe_key(MINI) != before


@pytest.mark.parametrize(
    ("configured", "expected"), [("/c", Path("/c")), ("c", None), ("", None), (None, None)]
)
def test_models_live_in_the_users_cache(
    monkeypatch: pytest.MonkeyPatch, configured: str | None, expected: Path | None
) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XDG_CACHE_HOME", configured or "")
    if configured is None:
        monkeypatch.delenv("XDG_CACHE_HOME")
    base = expected or Path("/home/someone/.cache")
    assert cache.models_folder() == base / "sglang-governor" / "models"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    return tiny_models(MINI, folder=tmp_path_factory.mktemp("trained"), progress=False)


def test_trains_twice_to_identical_weights(trained: TinyModels, tmp_path: Path) -> None:
    second = tiny_models(MINI, folder=tmp_path, progress=False)
    assert digest(trained) == digest(second)
    assert {"target/model.safetensors", "draft/model.safetensors"} <= set(digest(trained))
    assert hidden(tmp_path) == []


def test_models_load_as_what_the_recipe_says(trained: TinyModels) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(trained.target)
    assert len(tokenizer) <= MINI.vocab_size
    text = "def f():\n    return 'ü→'\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "def f():"}], tokenize=False, add_generation_prompt=True
    )
    assert prompt == "<|im_start|>user\ndef f():<|im_end|>\n<|im_start|>assistant\n"
    for folder in (trained.target, trained.draft):
        model: Any = AutoModelForCausalLM.from_pretrained(folder)
        assert model.config.eos_token_id == tokenizer.eos_token_id
        assert model.config.vocab_size == MINI.vocab_size
        assert model.dtype.is_floating_point
        assert str(model.dtype) == "torch.float32"


def test_layers_on_top_change_nothing(trained: TinyModels) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(trained.target)
    prompt = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        deep = model(prompt).logits
        model.model.layers = model.model.layers[: MINI.trained_layers]
        assert torch.equal(model(prompt).logits, deep)


def test_more_trained_layers_than_there_are_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="trained_layers"):
        tiny_models(replace(MINI, trained_layers=3), folder=tmp_path, progress=False)


def test_training_leaves_the_callers_torch_alone(tmp_path: Path) -> None:
    import torch

    torch.manual_seed(7)
    expected, threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(7)
    tiny_models(MINI, folder=tmp_path, progress=False)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


def test_a_second_call_trains_nothing(trained: TinyModels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_build", lambda *_args, **_named: pytest.fail("trained again"))
    folder = trained.target.parents[1]
    assert tiny_models(MINI, folder=folder, progress=False) == trained


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    impossible = replace(MINI, row_tokens=10**9)
    with pytest.raises(RuntimeError, match="less than one row"):
        tiny_models(impossible, folder=tmp_path, progress=False)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_too_few_sources_are_explained() -> None:
    with pytest.raises(RuntimeError, match="without the sources"):
        functions(replace(MINI, functions=10**7))


SLOW_BUILDER = """
import sys, time, types
from pathlib import Path
import msgspec

def train(recipe, target, draft, *, progress):
    for model in (target, draft):
        model.mkdir(parents=True)
        (model / "config.json").write_text("{}")
    with open(sys.argv[2], "a") as log:
        log.write("built\\n")
    time.sleep(float(sys.argv[3]))

# In place of the real one, whose imports take seconds.
fake = types.ModuleType("governor_bench.tiny_models.train")
fake.train = train
sys.modules[fake.__name__] = fake
from governor_bench.tiny_models import tiny_models
from governor_bench.tiny_models.recipe import Recipe

recipe = msgspec.json.decode(sys.argv[4], type=Recipe)
models = tiny_models(recipe, folder=Path(sys.argv[1]), progress=False)
sys.exit(not (models.target / "config.json").exists())
"""


def start(folder: Path, log: Path, pause_s: float) -> subprocess.Popen[bytes]:
    """Build MINI in a process of its own; each build adds a line to `log` and then pauses."""
    arguments = [str(folder), str(log), str(pause_s), msgspec.json.encode(MINI).decode()]
    return subprocess.Popen([sys.executable, "-c", SLOW_BUILDER, *arguments])


def test_concurrent_builders_train_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    builders = [start(tmp_path / "models", log, 0.5) for _ in range(3)]
    assert [builder.wait(30) for builder in builders] == [0, 0, 0]
    assert log.read_text() == "built\n"


def test_a_killed_builder_leaves_nothing_half_made(tmp_path: Path) -> None:
    folder, log = tmp_path / "models", tmp_path / "log"
    killed = start(folder, log, 60)
    deadline = time.monotonic() + 30
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.kill()
    killed.wait(10)
    assert len(hidden(folder)) == 1
    assert not (folder / cache.recipe_key(MINI)).exists()

    models = tiny_models(MINI, folder=folder, progress=False)
    assert (models.target / "model.safetensors").exists()
    assert hidden(folder) == []
