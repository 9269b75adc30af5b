"""Governor's request fields by themselves: their names, and what each may hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sglang_patch.errors import RequestFieldError

TRUNK = "trunk"
OPPORTUNISTIC = "opportunistic"

MAX_GROUP_CHARS = 128
MAX_SLO_MS = 3.6e6
MAX_EXPECTED_TOKENS = 1 << 20


def check_field(name: str, value: Any) -> None:
    """Check the value of one of Governor's fields by itself; None is as good as left out.

    Raises:
        RequestFieldError: naming the field.
    """
    if value is not None:
        _CHECKS[name](name, value)


def _check_group(name: str, value: Any) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_GROUP_CHARS:
        raise RequestFieldError(name, f"must be a string of 1 to {MAX_GROUP_CHARS} characters")


def _check_role(name: str, value: Any) -> None:
    if not isinstance(value, str) or value not in (TRUNK, OPPORTUNISTIC):
        raise RequestFieldError(name, f"must be {TRUNK!r} or {OPPORTUNISTIC!r}")


def _check_protected(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise RequestFieldError(name, "must be true or false")


def _check_slo(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RequestFieldError(name, f"must be a number of milliseconds, not {_shown(value)}")
    if not 0 < value <= MAX_SLO_MS:
        raise RequestFieldError(
            name, f"must be above 0 and at most {MAX_SLO_MS:g} ms, not {_shown(value)}"
        )


def _check_expected(name: str, value: Any) -> None:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not is_number or not 0 < value <= MAX_EXPECTED_TOKENS:
        raise RequestFieldError(
            name,
            f"must be a whole number of tokens from 1 to {MAX_EXPECTED_TOKENS}, "
            f"not {_shown(value)}; leave it out where nobody knows",
        )


def _shown(value: Any) -> str:
    """A value for an error's text; Python refuses to write down integers of thousands of digits."""
    if isinstance(value, int) and value.bit_length() > 128:
        return "a huge number"
    if isinstance(value, str | int | float):
        return f"{value!r:.40}"
    return type(value).__name__


_CHECKS: Mapping[str, Callable[[str, Any], None]] = {
    "branch_group": _check_group,
    "branch_role": _check_role,
    "ttft_slo_ms": _check_slo,
    "tpot_slo_ms": _check_slo,
    "protected": _check_protected,
    "expected_tokens": _check_expected,
}
FIELDS = tuple(_CHECKS)
