"""The EAGLE head of a tiny target, trained at most once for each recipe and set of versions."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from governor_bench.tiny_models.cache import (
    KEY_DIGITS,
    build_once,
    models_folder,
    recipe_key,
    tiny_models,
)
from governor_bench.tiny_models.eagle_recipe import EagleRecipe

FORMAT = 1
"""Raise when the code changes what a recipe trains."""


def tiny_eagle_head(
    recipe: EagleRecipe | None = None, *, folder: Path | None = None, progress: bool = True
) -> Path:
    """Find the head in the cache, or train it there, and its target before it if need be.

    Args:
        recipe: what to train; the default recipe unless given.
        folder: where to keep models; `models_folder()` unless given.
        progress: draw progress bars on standard error while training.

    Returns:
        A model folder, as `--speculative-draft-model-path` takes it with
        `--speculative-algorithm EAGLE`, for the target of `recipe.base`.

    Raises:
        RuntimeError: this Python ships too few sources to train on.
        OSError: the cache cannot be written.
    """
    recipe = recipe or EagleRecipe()
    folder = folder or models_folder()
    target = tiny_models(recipe.base, folder=folder, progress=progress).target

    def build(head: Path) -> None:
        # Costs seconds, and is not needed where the head is there already.
        from governor_bench.tiny_models.eagle_train import train_eagle_head

        train_eagle_head(recipe, target, head, progress=progress)

    return build_once(folder / f"eagle-{eagle_key(recipe)}", build)


def eagle_key(recipe: EagleRecipe) -> str:
    """Name that changes with whatever changes the weights, those of the target included."""
    ingredients = {
        "format": FORMAT,
        "base": recipe_key(recipe.base),
        "recipe": asdict(recipe),
    }
    text = json.dumps(ingredients, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]
