"""What can be set of a policy, read from the struct that declares it: nothing is told twice.

The meaning of a setting is the docstring below its field. Python does not keep those, so they are
read from the source.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from typing import Any

import msgspec
from governor_protos.settings import in_words
from msgspec.structs import FieldInfo

from controller_service.policies.base import PolicyKind


class Setting(msgspec.Struct, frozen=True):
    """One setting of a policy."""

    name: str
    default: Any
    """None: it must be given."""
    may_be: str
    """``a number from 0 to 1``."""
    meaning: str
    """Empty if the struct says nothing, or its source cannot be read."""


class Described(msgspec.Struct, frozen=True):
    """One policy, for people."""

    name: str
    decides: str
    """The knob."""
    summary: str
    usage: str
    settings: tuple[Setting, ...]
    """In the order in which they may be given without their names."""


def described(kind: PolicyKind) -> Described:
    meanings = field_docstrings(kind.config_type)
    settings = tuple(
        Setting(
            field.name,
            _default(field),
            in_words(field.type),
            meanings.get(field.name, ""),
        )
        for field in msgspec.structs.fields(kind.config_type)
    )
    return Described(kind.name, str(kind.knob), kind.summary, kind.usage or kind.name, settings)


def _default(field: FieldInfo) -> Any:
    if field.required:
        return None
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def field_docstrings(kind: type[msgspec.Struct]) -> dict[str, str]:
    """The strings below the fields of a struct, each on one line; empty without its source."""
    try:
        source = textwrap.dedent(inspect.getsource(kind))
    except (OSError, TypeError):
        return {}  # as of a class that was made at a prompt
    (body,) = (node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    found = {}
    for field, below in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            match below:
                case ast.Expr(value=ast.Constant(value=str() as text)):
                    found[field.target.id] = " ".join(text.split())
    return found
