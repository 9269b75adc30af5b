"""The same wishes as in ``custom_params``, said in HTTP headers.

For clients that cannot set ``custom_params``, and for proxies that set targets by route. The names
of the Gateway API inference extension and of llm-d are read as well; docs/requests.md cites them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from sglang_patch.errors import RequestFieldError
from sglang_patch.requests import MAX_SLO_MS, check_field

PREFIX = "x-governor-"
PLACE = "header "
"""How errors say where the field stands."""
MAX_HEADER_CHARS = 1024


class Header(NamedTuple):
    """One header that Governor reads."""

    field: str
    """The field of ``custom_params`` that it stands for."""
    read: Callable[[str], Any]
    """Its value from its text; a ValueError if the text is no such value, None if it says nothing.
    """


def _text(text: str) -> str:
    return text


def _number(text: str) -> float:
    return float(text)


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise ValueError
    return int(text)


def _gateway_target(text: str) -> float | None:
    """A gateway's target in milliseconds: there, zero and an empty header mean that there is none.

    Gateways pass whole batch windows on as targets, so a longer one than Governor knows is no
    error; it binds nobody.
    """
    if not text:
        return None
    target = float(text)
    if math.isnan(target):
        raise ValueError
    return min(target, MAX_SLO_MS) if target > 0 else None


HEADERS: Mapping[str, Header] = {
    "x-slo-ttft-ms": Header("ttft_slo_ms", _gateway_target),
    "x-slo-tpot-ms": Header("tpot_slo_ms", _gateway_target),
    PREFIX + "branch-group": Header("branch_group", _text),
    PREFIX + "branch-role": Header("branch_role", _text),
    PREFIX + "ttft-slo-ms": Header("ttft_slo_ms", _number),
    PREFIX + "tpot-slo-ms": Header("tpot_slo_ms", _number),
    PREFIX + "expected-tokens": Header("expected_tokens", _whole),
}
"""By lower-case name. Where two stand for one field the later one here wins."""
_FIELD_BY_NAME = {name.encode(): name for name in HEADERS}


def fields_in(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, Any]:
    """The fields that a request's headers stand for.

    Args:
        headers: names in lower case and values, as ASGI has them.

    Raises:
        RequestFieldError: naming the header.
    """
    found: dict[str, bytes] = {}
    for raw, value in headers:
        name = _FIELD_BY_NAME.get(raw)
        if name is None:
            continue
        if found.setdefault(name, value) != value:
            raise RequestFieldError(name, "is given twice, with different values", PLACE)
    if not found:
        return {}
    fields: dict[str, Any] = {}
    for name, header in HEADERS.items():
        if name in found:
            value = _value(name, header, found[name])
            if value is not None:
                fields[header.field] = value
    if "branch_role" in fields and "branch_group" not in fields:
        raise RequestFieldError(
            PREFIX + "branch-role", f"needs {PREFIX}branch-group beside it", PLACE
        )
    return fields


def _value(name: str, header: Header, raw: bytes) -> Any:
    if len(raw) > MAX_HEADER_CHARS:
        raise RequestFieldError(name, f"is longer than {MAX_HEADER_CHARS} bytes", PLACE)
    try:
        text = raw.decode().strip()
    except UnicodeDecodeError:
        raise RequestFieldError(name, "is not UTF-8", PLACE) from None
    try:
        value = header.read(text)
    except ValueError:
        raise RequestFieldError(name, f"must be a number, not {text!r:.40}", PLACE) from None
    try:
        check_field(header.field, value)
    except RequestFieldError as error:
        raise RequestFieldError(name, error.problem, PLACE) from None
    return value
