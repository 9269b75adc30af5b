"""The tiny models of a user, trained at most once for each recipe and set of versions."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from governor_bench.tiny_models.recipe import Recipe

FORMAT = 1
"""Raise when the code changes what a recipe trains."""

VERSIONED_PACKAGES = ("torch", "transformers", "tokenizers")

KEY_DIGITS = 16


@dataclass(frozen=True)
class TinyModels:
    """Two model folders, as `--model-path` and `--speculative-draft-model-path` take them."""

    target: Path
    draft: Path


def tiny_models(
    recipe: Recipe | None = None, *, folder: Path | None = None, progress: bool = True
) -> TinyModels:
    """Find the tiny models in the cache, or train them there.

    Safe to call from many processes at once: one trains, the others wait for it. A run that is
    killed leaves only a hidden folder, which the next run removes.

    Args:
        recipe: what to train; the default recipe unless given.
        folder: where to keep models; `models_folder()` unless given.
        progress: draw a progress bar on standard error while training.

    Raises:
        RuntimeError: this Python ships too few sources to train on.
        OSError: the cache cannot be written.
    """
    recipe = recipe or Recipe()
    folder = folder or models_folder()
    key = recipe_key(recipe)
    finished = build_once(folder / key, lambda models: _build(recipe, models, progress=progress))
    return TinyModels(target=finished / "target", draft=finished / "draft")


def build_once(finished: Path, build: Callable[[Path], None]) -> Path:
    """Have `build` make the folder `finished`, unless it is there.

    Of several processes one builds and the others wait. `build` is given another name beside it,
    which becomes `finished` in one step when it has returned.
    """
    if not finished.is_dir():
        finished.parent.mkdir(parents=True, exist_ok=True)
        with _only_builder(finished.parent / f"{finished.name}.lock"):
            if not finished.is_dir():
                _build_beside(finished, build)
    return finished


def models_folder() -> Path:
    """Folder of this user's tiny models: below `$XDG_CACHE_HOME`, or `~/.cache` without one."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification has relative values ignored.
    base = Path(configured) if Path(configured).is_absolute() else Path.home() / ".cache"
    return base / "sglang-governor" / "models"


def recipe_key(recipe: Recipe) -> str:
    """Name that changes with whatever changes the weights: recipe, versions and corpus (Python)."""
    ingredients = {
        "format": FORMAT,
        "recipe": asdict(recipe),
        "python": platform.python_version(),
        "packages": {package: version(package) for package in VERSIONED_PACKAGES},
    }
    text = json.dumps(ingredients, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]


def _build(recipe: Recipe, models: Path, *, progress: bool) -> None:
    # Costs seconds, and is not needed where the models are there already.
    from governor_bench.tiny_models.train import train

    train(recipe, models / "target", models / "draft", progress=progress)


def _build_beside(finished: Path, build: Callable[[Path], None]) -> None:
    """Build in a hidden folder beside `finished` and rename. The caller holds the lock."""
    prefix = f".{finished.name}-"
    for leftover in finished.parent.glob(f"{prefix}*"):
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=finished.parent) as workspace:
        models = Path(workspace) / "models"
        build(models)
        models.rename(finished)


@contextmanager
def _only_builder(lock: Path) -> Iterator[None]:
    """Hold an exclusive lock on `lock`; the kernel gives it back when the holder dies.

    The file stays: removing it would let two builders hold locks on two files of one name.
    """
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
