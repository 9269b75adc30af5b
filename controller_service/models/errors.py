"""Why a model was not taken."""

from __future__ import annotations

from controller_service.predictors.registry import CORRECTED
from controller_service.session import EngineSession
from controller_service.sessions import Sessions


class NotPromoted(ValueError):
    """A model that was not taken."""

    def __init__(self, field: str, reason: str, message: str, status: int = 409) -> None:
        super().__init__(message)
        self.field = field
        """What of the request was at fault."""
        self.reason = reason
        """Machine-readable, and the label under which it was counted."""
        self.status = status


def sessions_of(sessions: Sessions, engine_id: str) -> list[EngineSession]:
    known = [session for session, _ in sessions if engine_id in ("", session.hello.engine_id)]
    if engine_id and not known:
        raise NotPromoted(
            "engine", "no_engine", f"no engine {engine_id!r}; /v1/status lists them", 404
        )
    return known


def takes_none(predictor: str) -> str:
    better_name = f"{CORRECTED}linear"
    return f"predictor {predictor} takes no models; start with --predictor {better_name}"
