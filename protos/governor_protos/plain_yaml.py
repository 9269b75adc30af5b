"""Settings' YAML: plain values, and one kind of error."""

from __future__ import annotations

import re
from typing import Any

import yaml

MOST_DEPTH = 16
"""Values in values. Settings have none, which a later check says by name."""


_BOOL = "tag:yaml.org,2002:bool"


class NotYaml(ValueError):
    """Text that is no YAML, or more than settings need of it; says in one line what and where."""


def parse_yaml(text: bytes) -> Any:
    """
    Only ``true`` and ``false`` are booleans, as in YAML 1.2: ``policy: off`` is a text. A key that
    a mapping has twice is an error, as one of its two values would be lost.

    Raises:
        NotYaml: for whatever is wrong with the text.
    """
    try:
        loader = _Plain(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except _SetTwice as error:
        raise NotYaml(_where_and_what(error)) from error
    except yaml.MarkedYAMLError as error:
        raise NotYaml(f"not YAML: {_where_and_what(error)}") from error
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
        # PyYAML's own parsers of dates, numbers and the like raise what they please.
        raise NotYaml(f"not YAML: {error}") from error


def is_plain(text: str) -> bool:
    """Whether the system and the wire can carry a text: YAML's escapes can write any other."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:  # half of a pair of surrogates, or a byte that is not UTF-8
        return False


def _where_and_what(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    what = ": ".join(filter(None, (error.context, error.problem)))
    return what if mark is None else f"line {mark.line + 1}: {what}"


class _SetTwice(yaml.MarkedYAMLError):
    """A mapping has one key twice."""


class _Plain(yaml.SafeLoader):
    """Without aliases: a few lines of them can stand for more than any memory holds."""

    def __init__(self, text: bytes) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem="aliases are not read", problem_mark=self.current_event.start_mark
            )
        self._depth += 1
        if self._depth > MOST_DEPTH:
            where = self.current_event.start_mark
            raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=where)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        first_lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # the constructor refuses it
            name = (key.tag, key.value)
            if name in first_lines:
                first = first_lines[name]
                raise _SetTwice(
                    problem=f"{key.value!r} is set twice, first in line {first}; keep one",
                    problem_mark=key.start_mark,
                )
            first_lines[name] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


_Plain.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOL]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Plain.add_implicit_resolver(_BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF")
