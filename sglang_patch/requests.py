"""What a client may ask of Governor in one request, and how branches of a request are grouped.

Clients speak through ``custom_params`` (``sampling_params.custom_params`` on ``/generate``, the
top-level ``custom_params`` on the OpenAI routes, ``extra_body`` in OpenAI's client):

=============== ======================================================================
branch_group    str: requests with equal names are branches of one piece of work
branch_role     "trunk" or "opportunistic" (default: opportunistic)
ttft_slo_ms     number: promised time to first token
tpot_slo_ms     number: promised time per output token
protected       boolean: whether nobody may take its memory (default: false)
expected_tokens integer: how much it will write, as far as its client knows; a hint
=============== ======================================================================

Requests with ``n > 1`` are grouped on their own. Checked in the tokenizer's process, so that bad
input is a 400 there and never reaches the scheduler.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from sglang_patch.errors import RequestFieldError

GROUP_KEY = "_governor_group"
"""Where the scoped group name travels to the scheduler; clients may not set it."""
ROLE_KEY = "branch_role"
PROTECTED_KEY = "protected"
EXPECTED_KEY = "expected_tokens"
TRUNK = "trunk"
OPPORTUNISTIC = "opportunistic"

MAX_GROUP_CHARS = 128
MAX_SLO_MS = 3.6e6
MAX_EXPECTED_TOKENS = 1 << 20
MAX_INT = (1 << 63) - 1
_OURS = (
    "branch_group",
    "branch_role",
    "ttft_slo_ms",
    "tpot_slo_ms",
    "protected",
    "expected_tokens",
)
NO_HEADERS: Mapping[str, Any] = MappingProxyType({})
_SCALARS = (type(None), bool, int, float, str)


class RequestTerms(NamedTuple):
    """What the scheduler knows of a request's wishes. Times in seconds; None: use the default."""

    group: str
    """Empty: the request stands alone."""
    trunk: bool
    ttft_slo_s: float | None
    tpot_slo_s: float | None
    protected: bool = False
    """Never to lose its KV memory for others' sake."""
    expected_tokens: int = 0
    """Output that its client expects; 0: it said nothing."""


ALONE = RequestTerms(group="", trunk=False, ttft_slo_s=None, tpot_slo_s=None)


def validated(
    params: Any, *, n: int, request_id: str, headers: Mapping[str, Any] = NO_HEADERS
) -> dict[str, Any] | None:
    """Check a request's ``custom_params`` and add the group that it belongs to.

    Args:
        params: what the client sent, of any type.
        n: parallel samples asked for.
        request_id: unique id of the (parent) request; names the group of ``n > 1`` samples.
        headers: checked fields from the request's HTTP headers. Fields in ``params`` win.

    Returns:
        The parameters for the scheduler, or None if there are none.

    Raises:
        RequestFieldError: naming the field; SGLang turns it into HTTP 400.
    """
    if params is None:
        params = {}
    if not isinstance(params, dict):
        raise RequestFieldError("*", f"must be an object, not {type(params).__name__}")
    for key, value in params.items():
        _check_flat(key, value)
    for name in _OURS:
        check_field(name, params.get(name))
    if headers:
        params = _with_headers(params, headers, n)
    group = _group(params)
    if n > 1:
        if group is not None:
            raise RequestFieldError(
                "branch_group",
                "cannot be combined with n > 1: the samples already form a group; use n = 1",
            )
        return {**params, GROUP_KEY: f"n:{request_id}"}
    if group is not None:
        return {**params, GROUP_KEY: f"g:{group}"}
    return params or None


def terms(params: Any) -> RequestTerms:
    """Read the terms of a request in the scheduler, where :func:`validated` has been before."""
    if not params:
        return ALONE
    ttft, tpot = params.get("ttft_slo_ms"), params.get("tpot_slo_ms")
    return RequestTerms(
        group=params.get(GROUP_KEY, ""),
        trunk=params.get(ROLE_KEY) == TRUNK,
        ttft_slo_s=None if ttft is None else ttft / 1e3,
        tpot_slo_s=None if tpot is None else tpot / 1e3,
        protected=is_protected(params),
        expected_tokens=params.get(EXPECTED_KEY) or 0,
    )


def is_protected(params: Any) -> bool:
    """Whether a request's client asked that its memory is left to it."""
    return bool(params) and params.get(PROTECTED_KEY) is True


def _check_flat(key: Any, value: Any) -> None:
    if not isinstance(key, str):
        raise RequestFieldError(repr(key)[:64], "names must be strings")
    if not key:
        raise RequestFieldError("''", "a name has at least one letter")
    if key.startswith("_governor"):
        raise RequestFieldError(key[:64], "names that start with '_governor' are reserved")
    items: list[Any] = [value]
    if isinstance(value, dict) and key not in _OURS:
        if not all(isinstance(name, str) for name in value):
            raise RequestFieldError(key[:64], "names must be strings")
        items = list(value.values())
    elif isinstance(value, list) and key not in _OURS:
        items = value
    elif not isinstance(value, _SCALARS):
        raise RequestFieldError(key[:64], f"must be a plain value, not {type(value).__name__}")
    for item in items:
        if not isinstance(item, _SCALARS):
            raise RequestFieldError(
                key[:64], "may hold plain values only; SGLang cannot carry deeper nesting"
            )
        if isinstance(item, int) and not -MAX_INT - 1 <= item <= MAX_INT:
            raise RequestFieldError(key[:64], "holds a number that does not fit 64 bits")


def check_field(name: str, value: Any) -> None:
    """Check the value of one of Governor's fields by itself; None is as good as left out.

    Raises:
        RequestFieldError: naming the field.
    """
    if value is not None:
        _CHECKS[name](name, value)


def _with_headers(params: dict[str, Any], headers: Mapping[str, Any], n: int) -> dict[str, Any]:
    """The fields of the body, and those of the headers that the body leaves open.

    A group and its role belong together. A body that names a group, or whose samples form one,
    says who the request belongs to, so that the headers' group and role do not count.
    """
    has_group = n > 1 or "branch_group" in params
    left_out = ("branch_group", "branch_role") if has_group else ()
    return {name: value for name, value in headers.items() if name not in left_out} | params


def _group(params: dict[str, Any]) -> str | None:
    group: str | None = params.get("branch_group")
    if group is None and params.get("branch_role") is not None:
        raise RequestFieldError("branch_role", "needs branch_group beside it")
    return group


def _check_group(name: str, value: Any) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_GROUP_CHARS:
        raise RequestFieldError(name, f"must be a string of 1 to {MAX_GROUP_CHARS} characters")


def _check_role(name: str, value: Any) -> None:
    if value not in (TRUNK, OPPORTUNISTIC):
        raise RequestFieldError(name, f"must be {TRUNK!r} or {OPPORTUNISTIC!r}")


def _check_protected(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise RequestFieldError(name, "must be true or false")


def _check_slo(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RequestFieldError(name, f"must be a number of milliseconds, not {value!r:.40}")
    if not math.isfinite(value) or not 0 < value <= MAX_SLO_MS:
        raise RequestFieldError(
            name, f"must be above 0 and at most {MAX_SLO_MS:g} ms, not {value!r:.40}"
        )


def _check_expected(name: str, value: Any) -> None:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not is_number or not 0 < value <= MAX_EXPECTED_TOKENS:
        raise RequestFieldError(
            name,
            f"must be a whole number of tokens from 1 to {MAX_EXPECTED_TOKENS}, not {value!r:.40}; "
            "leave it out where nobody knows",
        )


_CHECKS: Mapping[str, Callable[[str, Any], None]] = {
    "branch_group": _check_group,
    ROLE_KEY: _check_role,
    "ttft_slo_ms": _check_slo,
    "tpot_slo_ms": _check_slo,
    PROTECTED_KEY: _check_protected,
    EXPECTED_KEY: _check_expected,
}
