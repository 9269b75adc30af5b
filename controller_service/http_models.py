"""The part of the API that is about models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from governor_protos.limits import MAX_TEXT
from msgspec import Meta

from controller_service.controller import Controller
from controller_service.models.errors import NotPromoted
from controller_service.models.promoting import promote
from controller_service.models.status import model_status

MOST_PATH = 4096


class PromoteRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of ``PUT /v1/model``."""

    path: Annotated[str, Meta(min_length=1, max_length=MOST_PATH)]
    """Folder of the model, on the controller's machine."""
    engine: Annotated[str, Meta(max_length=MAX_TEXT)] = ""
    """Empty: every engine that the model was fitted to."""
    force: bool = False


class RollbackRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of ``POST /v1/model/rollback``; may be left out."""

    engine: Annotated[str, Meta(max_length=MAX_TEXT)] = ""


class BadBody(ValueError):
    """A body that is not what it should be."""


class ModelApi:
    """What the handlers do, off the loop; ``on_loop`` runs a function there and waits for it."""

    def __init__(self, controller: Controller, on_loop: Callable[[Callable[[], Any]], Any]) -> None:
        self._controller = controller
        self._on_loop = on_loop

    def show(self) -> dict[str, Any]:
        sessions = self._controller.sessions
        return {"engines": self._on_loop(lambda: [model_status(one) for one, _ in sessions])}

    def promote(self, body: bytes) -> dict[str, Any]:
        """
        Raises:
            BadBody, NotPromoted.
        """
        asked = _decode(body, PromoteRequest, '{"path": "models/a100"}')
        controller = self._controller
        return promote(
            asked.path,
            asked.engine,
            asked.force,
            controller.sessions,
            controller.models,
            self._on_loop,
        )

    def roll_back(self, body: bytes) -> dict[str, Any]:
        """
        Raises:
            BadBody, NotPromoted.
        """
        asked = _decode(body or b"{}", RollbackRequest, '{"engine": "engine-1"}')
        controller = self._controller
        return {
            "engines": self._on_loop(
                lambda: controller.models.roll_back(controller.sessions, asked.engine)
            )
        }


def _decode(body: bytes, kind: type[Any], example: str) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadBody(f"expected {example}: {error}") from error


__all__ = ["BadBody", "ModelApi", "NotPromoted"]
