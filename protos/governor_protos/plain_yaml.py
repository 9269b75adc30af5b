"""Settings' YAML: plain values, and one kind of error."""

from __future__ import annotations

from typing import Any

import yaml

MOST_DEPTH = 16
"""Values in values. Settings have none, which a later check says by name."""


class NotYaml(ValueError):
    """Text that is no YAML, or more than settings need of it; says where."""


def parse_yaml(text: bytes) -> Any:
    """
    Raises:
        NotYaml: for whatever is wrong with the text.
    """
    try:
        loader = _Plain(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
        # PyYAML's own parsers of dates, numbers and the like raise what they please.
        raise NotYaml(str(error)) from error


def is_plain(text: str) -> bool:
    """Whether the system and the wire can carry a text: YAML's escapes can write any other."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:  # half of a pair of surrogates, or a byte that is not UTF-8
        return False


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
