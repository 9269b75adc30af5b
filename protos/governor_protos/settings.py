"""Settings that somebody wrote, checked one by one against the struct that declares them.

Both sides read their settings with it, so both name a setting as it was written, say what it may
be, and say what it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import inspect
from msgspec.structs import FieldInfo

S = TypeVar("S", bound=msgspec.Struct)

SWITCHES = {"yes": True, "on": True, "no": False, "off": False}
"""Words that YAML 1.1 takes for true and false. A text may be one of them, a switch too."""


_OF_KUBERNETES = re.compile(r"\w+_(SERVICE_(HOST|PORT\w*)|PORT(_\w+)?)")


class BadSetting(ValueError):
    """A setting that cannot be used; names the setting, what it may be and what it was."""


def read_settings(
    values: Mapping[str, Any],
    kind: type[S],
    spelled: Callable[[str], str],
    *,
    strict: bool = True,
) -> S:
    """The struct that ``values`` describe.

    Args:
        values: by field; every key is a field of ``kind``.
        spelled: how a field is named where it was written, such as ``--log-level``.
        strict: whether ``"3"`` is no number; variables are texts, so they are read with False.

    Raises:
        BadSetting: a value is missing, of another type or out of bounds.
    """
    checked = {}
    for field in msgspec.structs.fields(kind):
        if field.name in values:
            checked[field.name] = _value(values[field.name], field, spelled(field.name), strict)
        elif field.required:
            raise BadSetting(f"{spelled(field.name)}: expected {in_words(field.type)}, got nothing")
    return kind(**checked)


def is_set_by_kubernetes(variable: str) -> bool:
    """Whether a variable has the form of those that Kubernetes sets, in every container, for a
    service: one called ``governor-controller`` brings ``GOVERNOR_CONTROLLER_PORT``."""
    return _OF_KUBERNETES.fullmatch(variable) is not None


def in_words(kind: Any) -> str:
    """What a value of a field may be: ``a whole number from 1 to 64``."""
    return _in_words(inspect.type_info(kind))


def _value(value: Any, field: FieldInfo, name: str, strict: bool) -> Any:
    if field.type is bool and isinstance(value, str):
        value = SWITCHES.get(value.lower(), value)
    try:
        return msgspec.convert(value, field.type, strict=strict)
    except msgspec.ValidationError as error:
        wanted = inspect.type_info(field.type)
        is_unquoted = isinstance(wanted, inspect.StrType) and not isinstance(
            value, (str, list, dict, type(None))
        )
        quote_it = "; quote it if that is what it is" if is_unquoted else ""
        raise BadSetting(
            f"{name}: expected {_in_words(wanted)}, got {_as_written(value)}{quote_it}"
        ) from error


def _as_written(value: object) -> str:
    if value is None:
        return "nothing"
    return str(value).lower() if isinstance(value, bool) else f"{value!r:.80}"


def _in_words(kind: inspect.Type) -> str:
    match kind:
        case inspect.BoolType():
            words = "true or false"
        case inspect.IntType():
            words = "a whole number" + _bounds(kind)
        case inspect.FloatType():
            words = "a number" + _bounds(kind)
        case inspect.StrType(min_length=least, max_length=None):
            words = "a text that is not empty" if least else "a text"
        case inspect.StrType(min_length=least, max_length=most):
            words = f"a text of {f'{least} to' if least else 'at most'} {most} characters"
        case inspect.LiteralType(values=values):
            words = "one of " + ", ".join(map(str, values))
        case inspect.UnionType(types=types):
            words = " or ".join(map(_in_words, types))
        case inspect.NoneType():
            words = "nothing"
        case inspect.Metadata(type=inner):
            words = _in_words(inner)
        case _:
            words = "a " + type(kind).__name__.removesuffix("Type").lower()
    return words


def _bounds(kind: inspect.IntType | inspect.FloatType) -> str:
    """`` from 1 to 64``, `` above 0 and at most 50``, or nothing."""
    if kind.ge is not None and kind.le is not None:
        return f" from {_plain(kind.ge)} to {_plain(kind.le)}"
    limits = (("above", kind.gt), ("at least", kind.ge), ("below", kind.lt), ("at most", kind.le))
    told = " and ".join(f"{word} {_plain(at)}" for word, at in limits if at is not None)
    return f" {told}" if told else ""


def _plain(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:.15g}"
