"""A model from a folder, and the engine that it was fitted to."""

from __future__ import annotations

from pathlib import Path

import msgspec
from governor_protos.messages import Hello

from controller_service.learning.model import EngineKey
from controller_service.models.errors import NotPromoted
from controller_service.predictors.candidate import Candidate, prepare


def load(folder: str) -> tuple[EngineKey, Candidate]:
    """A model from its folder, checked and ready, and the engine that it was fitted to.

    Raises:
        NotPromoted: the folder does not hold a model that can be used.
    """
    from controller_service.learning.artifact import (  # noqa: PLC0415 - needed by few
        ModelRefused,
        load_model,
    )

    try:
        loaded = load_model(Path(folder), None)
    except ModelRefused as error:
        raise NotPromoted("path", error.reason, str(error), 400) from error
    candidate = prepare(loaded.model, loaded.manifest.model_id)
    return (
        loaded.manifest.engine,
        msgspec.structs.replace(candidate, acceptance=loaded.acceptance),
    )


def engine_key(hello: Hello) -> EngineKey:
    """What the step times of this engine hang on."""
    return EngineKey(hello.model, hello.device, hello.tp_size, hello.sglang_version)


def describe(engine: EngineKey) -> str:
    """For people."""
    return (
        f"{engine.model} on {engine.device or 'an unknown device'}, tp {engine.tp_size}, "
        f"SGLang {engine.sglang_version}"
    )
