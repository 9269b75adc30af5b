"""Fields of Governor that stand where SGLang drops them, found in a request's body as it was sent.

SGLang passes ``custom_params`` on from one place a route, and from nowhere on some routes. What
stands elsewhere never reaches the hook that reads it, so it is looked for here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sglang_patch.errors import RequestFieldError
from sglang_patch.fields import FIELDS
from sglang_patch.near import MOST_NAMES, SWITCH, near

CUSTOM = "custom_params"
WRAPPERS = ("extra_body", "sampling_params")
"""Objects that clients put ``custom_params`` in and whose place in the body is elsewhere."""
PLACES: Mapping[str, tuple[str, ...] | None] = {
    "/generate": ("sampling_params",),
    "/vertex_generate": ("parameters", "sampling_params"),
    "/v1/completions": (),
    "/v1/chat/completions": (),
    "/invocations": (),
    "/v1/responses": None,
    "/v1/messages": None,
    "/api/chat": None,
    "/api/generate": None,
}
"""By route: the objects around ``custom_params``, outermost first; None where SGLang has none."""


def check_places(path: str, body: Any) -> None:
    """Refuse a field of Governor, or a near miss of one, that SGLang would drop.

    Args:
        path: of the route; routes that generate nothing are not looked at.
        body: parsed.

    Raises:
        RequestFieldError: naming the field and where it belongs.
    """
    if path not in PLACES or not isinstance(body, dict):
        return
    place = PLACES[path]
    levels = [*(place or ()), None]
    inner: Any = body
    where = ""
    for name in levels:
        is_last = name is None
        for item in inner if isinstance(inner, list) else [inner]:
            if isinstance(item, dict):
                _check_names(item, where, path, custom_allowed=is_last and place is not None)
        if name is not None:
            inner = inner.get(name) if isinstance(inner, dict) else None
            where += f"{name}."
    _check_wrappers(body, path)


def where_it_belongs(path: str) -> str:
    """Where a client of this route says what it wishes."""
    place = PLACES[path]
    if place is None:
        return "this route has none: use the headers x-governor-..."
    return "put it in " + ".".join((*place, CUSTOM))


def _check_names(names: Mapping[str, Any], where: str, path: str, *, custom_allowed: bool) -> None:
    for name in names:
        if name == CUSTOM:
            if not custom_allowed:
                raise _dropped(CUSTOM, path, where)
        elif name in FIELDS:
            raise RequestFieldError(
                name, f"SGLang drops it here; {_field_place(path)}. {SWITCH}", where
            )
        elif len(names) <= MOST_NAMES and (field := near(name)):
            raise RequestFieldError(
                name, f"did you mean {field!r}? {_field_place(path)}. {SWITCH}", where
            )


def _check_wrappers(body: Mapping[str, Any], path: str) -> None:
    for name in WRAPPERS:
        inner = body.get(name)
        if isinstance(inner, dict) and CUSTOM in inner and (PLACES[path] or ("",))[0] != name:
            raise _dropped(CUSTOM, path, f"{name}.")


def _dropped(name: str, path: str, where: str) -> RequestFieldError:
    return RequestFieldError(
        name, f"SGLang drops it here; {where_it_belongs(path)}. {SWITCH}", where
    )


def _field_place(path: str) -> str:
    place = PLACES[path]
    if place is None:
        return "This route takes Governor's fields as headers x-governor-... only"
    return "It belongs in " + ".".join((*place, CUSTOM))
