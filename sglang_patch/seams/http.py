"""Seam: SGLang's HTTP server, where it reads a request's body.

What is refused here is a plain HTTP 400 on every route, in the route's own words for errors, also
where the answer would be a stream. The body is seen as the client sent it; later SGLang drops what
it does not know. It is parsed once, by SGLang.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sglang_patch.errors import RequestFieldError
from sglang_patch.headers import fields_in
from sglang_patch.placing import check_places
from sglang_patch.seams.hooks import Hook, apply, register_all
from sglang_patch.seams.tokenizer import field_rules

MODULE = "sglang.srt.entrypoints.http_server"
_SEEN = "governor.seen"
"""Key in the ASGI scope: some routes ask for the parsed body twice."""


async def around_json(original: Callable[[Any], Awaitable[Any]], request: Any) -> Any:
    """Refuse a request with a bad header, or with a field where SGLang drops it.

    Raises:
        HTTPException: status 400, naming the header or the field.
    """
    from fastapi import HTTPException

    body = await original(request)
    if not request.scope.get(_SEEN):
        check_names = field_rules().check_names
        try:
            fields_in(request.scope["headers"], check_names=check_names)
            if check_names:
                check_places(_route(request.scope), body)
        except RequestFieldError as error:
            raise HTTPException(status_code=400, detail=str(error)) from error
        request.scope[_SEEN] = True
    return body


def _route(scope: Mapping[str, Any]) -> str:
    """The path without the prefix that a proxy adds (``--fastapi-root-path``)."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


HOOKS = (
    Hook(
        f"{MODULE}.ORJSONRequest.json",
        around_json,
        "around",
        ("self",),
        frozenset({"launcher"}),
    ),
)


def hook_if_serving() -> None:
    """Register and apply these hooks if this process is an HTTP server, and once only.

    They are apart from the others, because SGLang imports what it hooks in every process. The HTTP
    server's module takes 15 MiB and most of a second, and schedulers have no use for it.

    Raises:
        ConfigurationError: this SGLang has no such target.
    """
    if MODULE in sys.modules:
        register_all(HOOKS)
        apply()
