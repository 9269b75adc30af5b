"""What goes wrong with a workload that somebody wrote or recorded."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

import msgspec
from msgspec import inspect


class WorkloadError(ValueError):
    """A mix, a trace or an option is unusable; the message names the field and the remedy."""


def explained(error: msgspec.ValidationError, kind: type[msgspec.Struct]) -> str:
    """An error's text; one about an unknown field or kind also names the nearest that there is."""
    text = str(error)
    structs = list(_structs_in(inspect.type_info(kind)))
    if found := re.search(r"unknown field `([^`]*)`", text):
        known = {field.encode_name for struct in structs for field in struct.fields}
    elif found := re.search(r"Invalid value '([^']*)'", text):
        known = {str(struct.tag) for struct in structs if struct.tag is not None}
    else:
        return text
    word = found[1]
    longer = sorted(name for name in known if name.startswith(word))
    near = difflib.get_close_matches(word, longer or sorted(known), n=1, cutoff=0.0)
    return f"{text}; did you mean {near[0]!r}?" if near else text


def _structs_in(node: inspect.Type) -> Iterator[inspect.StructType]:
    """A struct and every struct inside it."""
    match node:
        case inspect.StructType(fields=fields):
            yield node
            inner = [field.type for field in fields]
        case inspect.UnionType(types=types):
            inner = list(types)
        case inspect.VarTupleType(item_type=item):
            inner = [item]
        case _:
            inner = []
    for one in inner:
        yield from _structs_in(one)
