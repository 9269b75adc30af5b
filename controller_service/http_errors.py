"""Answers to requests that are not served: JSON, like all other answers."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from controller_service.http_refused import Refused


def _refused(request: Request, error: Any) -> Response:
    headers = {"www-authenticate": "Bearer"} if error.status == 401 else None
    return _answer(error.status, error.field, str(error), error.reason, headers)


def _not_routed(request: Request, error: Any) -> Response:
    """404 and 405, which no handler of ours has seen."""
    served = [route for route in request.app.routes if isinstance(route, Route)]
    methods = {
        method
        for route in served
        if route.path == request.url.path
        for method in route.methods or ()
    }
    if error.status_code == 405:
        allowed = ", ".join(sorted(methods))
        message = f"{request.url.path} is not for {request.method}; it takes {allowed}"
        return _answer(405, "method", message, headers={"allow": allowed})
    if error.status_code == 404:
        paths = ", ".join(sorted({route.path for route in served}))
        return _answer(404, "path", f"nothing is at {request.url.path}; there are {paths}")
    return _answer(error.status_code, "", str(error.detail))


def _broken(request: Request, error: Exception) -> Response:
    return _answer(500, "", "the controller made a mistake; its log has the details")


def _answer(
    status: int,
    field: str,
    message: str,
    reason: str = "",
    headers: dict[str, str] | None = None,
) -> Response:
    problem = {"field": field, "message": message, **({"reason": reason} if reason else {})}
    text = msgspec.json.encode({"error": problem})
    return Response(text, status, headers, media_type="application/json")


HANDLERS: dict[Any, Any] = {Refused: _refused, HTTPException: _not_routed, Exception: _broken}
"""By the exception that is answered."""
