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

Requests with ``n > 1`` are grouped on their own. Fields are checked in the tokenizer's process, so
that bad input is a 400 there. The scheduler trusts nothing: :func:`terms` reads what it can use.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from sglang_patch.errors import RequestFieldError
from sglang_patch.fields import FIELDS, TRUNK, check_field
from sglang_patch.near import MOST_NAMES, SWITCH, near

GROUP_KEY = "_governor_group"
"""Where the scoped group name travels to the scheduler; clients may not set it."""
ROLE_KEY = "branch_role"
PROTECTED_KEY = "protected"
EXPECTED_KEY = "expected_tokens"
MAX_DEPTH = 400
"""SGLang pickles requests on their way to the scheduler. Pickle fails before 500 levels, sooner the
deeper it is called."""
NO_HEADERS: Mapping[str, Any] = MappingProxyType({})


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
    ignored_fields: int = 0
    """Fields that nobody had checked and that are of no use."""


ALONE = RequestTerms(group="", trunk=False, ttft_slo_s=None, tpot_slo_s=None)


class FieldRules(NamedTuple):
    """What the operator has set for requests."""

    check_names: bool = True
    """Whether a near miss of a field's name is an error."""
    max_n: int | None = None
    """The most samples of one request; None: as many as SGLang takes."""


DEFAULT_RULES = FieldRules()


def validated(
    params: Any,
    *,
    n: int,
    request_id: str,
    headers: Mapping[str, Any] = NO_HEADERS,
    rules: FieldRules = DEFAULT_RULES,
) -> dict[str, Any] | None:
    """Check a request's ``custom_params`` and add the group that it belongs to.

    Args:
        params: what the client sent, of any type.
        n: parallel samples asked for.
        request_id: unique id of the (parent) request; names the group of ``n > 1`` samples.
        headers: checked fields from the request's HTTP headers. Fields in ``params`` win.
        rules: the operator's.

    Returns:
        The parameters for the scheduler, or None if there are none.

    Raises:
        RequestFieldError: naming the field; SGLang turns it into HTTP 400.
    """
    if rules.max_n is not None and n > rules.max_n:
        raise RequestFieldError("n", f"is {n}; GOVERNOR_MAX_N allows at most {rules.max_n}", "")
    was_given = params is not None
    if params is None:
        params = {}
    if not isinstance(params, dict):
        raise RequestFieldError("*", f"must be an object, not {type(params).__name__}")
    check_names = rules.check_names and len(params) <= MOST_NAMES
    for key, value in params.items():
        _check_name(key, check_names=check_names)
        _check_depth(key, value)
    for name in FIELDS:
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
    return params if params or was_given else None


def terms(params: Any) -> RequestTerms:
    """Read the terms of a request in the scheduler, whatever they are; it never raises.

    Requests come checked by :func:`validated`, unless they came by a way that Governor does not
    know of. A field that breaks its rule counts as left out.
    """
    if not isinstance(params, dict):
        return ALONE if params is None else ALONE._replace(ignored_fields=1)
    ours = {name: params[name] for name in FIELDS if params.get(name) is not None}
    usable = {name: value for name, value in ours.items() if _is_usable(name, value)}
    group = params.get(GROUP_KEY, "")
    has_group = isinstance(group, str)
    ttft, tpot = usable.get("ttft_slo_ms"), usable.get("tpot_slo_ms")
    return RequestTerms(
        group=group if has_group else "",
        trunk=usable.get(ROLE_KEY) == TRUNK,
        ttft_slo_s=None if ttft is None else ttft / 1e3,
        tpot_slo_s=None if tpot is None else tpot / 1e3,
        protected=usable.get(PROTECTED_KEY, False),
        expected_tokens=usable.get(EXPECTED_KEY, 0),
        ignored_fields=len(ours) - len(usable) + (not has_group),
    )


def is_protected(params: Any) -> bool:
    """Whether a request's client asked that its memory is left to it."""
    return isinstance(params, dict) and params.get(PROTECTED_KEY) is True


def _is_usable(name: str, value: Any) -> bool:
    try:
        check_field(name, value)
    except RequestFieldError:
        return False
    return True


def _check_name(name: Any, *, check_names: bool) -> None:
    """Names that are no strings are let pass: SGLang carries what its offline engine is given."""
    if not isinstance(name, str):
        return
    if name.startswith("_governor"):
        raise RequestFieldError(name[:64], "names that start with '_governor' are reserved")
    if check_names and (field := near(name)):
        raise RequestFieldError(name, f"did you mean {field!r}? {SWITCH}")


def _check_depth(key: Any, value: Any) -> None:
    """Walks level by level, so that depth cannot exhaust the stack. An object that is in a level
    twice counts once, so that a ring of objects cannot exhaust memory."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = list({id(inner): inner for item in level for inner in _inner(item)}.values())
        if not level:
            return
    raise RequestFieldError(
        _shown(key),
        f"is nested deeper than {MAX_DEPTH} levels, which SGLang cannot send to its scheduler",
    )


def _shown(name: Any) -> str:
    """A name for an error's text, where even the empty one can be seen."""
    return name[:64] if isinstance(name, str) and name else repr(name)[:64]


def _inner(value: Any) -> list[Any]:
    """The lists and objects in a list or an object."""
    if isinstance(value, dict):
        return [item for item in value.values() if isinstance(item, dict | list)]
    if isinstance(value, list):
        return [item for item in value if isinstance(item, dict | list)]
    return []


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
