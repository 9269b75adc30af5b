"""The YAML that settings are written in."""

from __future__ import annotations

import pytest
from governor_protos.plain_yaml import NotYaml, parse_yaml


@pytest.mark.parametrize("word", ["off", "on", "yes", "no", "Off", "NO"])
def test_a_word_that_yaml_once_took_for_a_boolean_is_a_text(word: str) -> None:
    assert parse_yaml(f"policy: {word}".encode()) == {"policy": word}


def test_true_and_false_are_booleans() -> None:
    assert parse_yaml(b"a: true\nb: False") == {"a": True, "b": False}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"policy: a\nx: 2\npolicy: b\n", "line 3: 'policy' is set twice, first in line 1"),
        (b"{a: 1, a: 1}", "line 1: 'a' is set twice, first in line 1"),
        (b"a:\n  b: 1\n  b: 2\n", "line 3: 'b' is set twice, first in line 2"),
        (b"- 3: 1\n  3: 2\n", "line 2: '3' is set twice"),
    ],
)  # fmt: skip
def test_a_key_that_is_set_twice_is_an_error_with_its_line(text: bytes, says: str) -> None:
    with pytest.raises(NotYaml) as error:
        parse_yaml(text)
    assert says in str(error.value)
    assert "not YAML" not in str(error.value)


@pytest.mark.parametrize("text", [b"a: [", b"a: b: c", b"\t- x", b"a: !!python/x {}", b"a: &x *x"])
def test_what_is_wrong_is_said_in_one_line(text: bytes) -> None:
    with pytest.raises(NotYaml, match=r"^not YAML: line 1: ") as error:
        parse_yaml(text)
    assert "\n" not in str(error.value)
