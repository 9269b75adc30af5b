"""The EAGLE head: one set of weights a recipe, under the names that SGLang loads."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from governor_bench.tiny_models import EagleRecipe, Recipe, cache, tiny_eagle_head  # noqa: E402
from governor_bench.tiny_models import eagle as eagle_cache  # noqa: E402
from governor_bench.tiny_models.recipe import Shape  # noqa: E402

BASE = Recipe(
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
MINI = EagleRecipe(base=BASE, intermediate_size=48, steps=3)


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_eagle_head(MINI, folder=tmp_path_factory.mktemp("trained"), progress=False)


def test_trains_twice_to_identical_weights_and_a_third_time_not_at_all(
    head: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = tiny_eagle_head(MINI, folder=tmp_path, progress=False)
    assert digest(head) == digest(second)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    monkeypatch.setattr(cache, "_build_beside", lambda *_: pytest.fail("trained again"))
    assert tiny_eagle_head(MINI, folder=tmp_path, progress=False) == second


def test_key_changes_with_the_head_and_with_its_target() -> None:
    keys = {
        eagle_cache.eagle_key(recipe)
        for recipe in (
            MINI,
            replace(MINI, steps=4),
            replace(MINI, unrolled=3),
            replace(MINI, base=replace(BASE, seed=1)),
        )
    }
    assert len(keys) == 4
    assert eagle_cache.eagle_key(MINI) == eagle_cache.eagle_key(replace(MINI))


def test_the_head_is_what_sglang_loads(head: Path) -> None:
    """One Llama layer without its first norm, a projection of both inputs, nothing shared."""
    from safetensors.torch import load_file

    config = json.loads((head / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLMEagle"]
    assert (config["hidden_size"], config["intermediate_size"]) == (32, 48)
    assert config["vocab_size"] == BASE.vocab_size
    weights = load_file(head / "model.safetensors")
    assert {name.removeprefix("layers.0.") for name in weights} == {
        *("fc.weight", "fc.bias", "post_attention_layernorm.weight"),
        *(f"self_attn.{part}_proj.weight" for part in "qkvo"),
        *(f"mlp.{part}_proj.weight" for part in ("gate", "up", "down")),
    }
    assert weights["fc.weight"].shape == (32, 64)
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


def test_training_leaves_the_callers_torch_alone(tmp_path: Path) -> None:
    torch.manual_seed(7)
    expected, threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(7)
    tiny_eagle_head(MINI, folder=tmp_path, progress=False)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
