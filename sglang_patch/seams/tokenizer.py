"""Seam: where a client's request becomes the object that is sent to the scheduler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from sglang_patch.headers import fields_in
from sglang_patch.requests import NO_HEADERS, validated

_header_fields: ContextVar[Mapping[str, Any]] = ContextVar(
    "governor_header_fields", default=NO_HEADERS
)
"""The fields in the HTTP headers of the request that this task serves.

SGLang tokenizes in the task that calls ``generate_request``, or in tasks that this one starts; both
see the value. A batch, and the samples of one request, therefore share it.
"""


def around_generate_request(
    original: Callable[..., Any], manager: Any, obj: Any, request: Any = None
) -> Any:
    """Take note of the request's headers, which SGLang does not hand on.

    ``request`` is None where there is no HTTP: the offline engine, and warm-up. Setting the value
    at every call keeps one request's headers from the next one of the same task.

    Raises:
        RequestFieldError: naming a header.
    """
    scope = getattr(request, "scope", None)
    headers = scope.get("headers", ()) if isinstance(scope, dict) else ()
    _header_fields.set(fields_in(headers))
    return original(manager, obj, request)


def after_create_tokenized_object(
    tokenized: Any, manager: Any, obj: Any, *args: Any, **kwargs: Any
) -> None:
    """Check Governor's request fields and group the samples of ``n > 1``.

    Raises:
        RequestFieldError: a ValueError, which SGLang answers with HTTP 400.
    """
    params = getattr(tokenized, "sampling_params", None)
    if params is None or not hasattr(params, "custom_params"):
        return
    params.custom_params = validated(
        params.custom_params,
        n=params.n or 1,
        request_id=str(tokenized.rid),
        headers=_header_fields.get(),
    )
