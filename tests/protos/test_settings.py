"""Settings, checked one by one against a struct."""

from __future__ import annotations

import datetime
from typing import Annotated, Literal

import msgspec
import pytest
from governor_protos.settings import BadSetting, in_words, read_settings
from msgspec import Meta


class Settings(msgspec.Struct, frozen=True):
    steps: Annotated[int, Meta(ge=1, le=64)]
    name: Annotated[str, Meta(min_length=1, max_length=9)] = "a"
    share: Annotated[float, Meta(gt=0, le=0.5)] = 0.5
    wait_ms: Annotated[float, Meta(gt=0)] | None = None
    switch: bool = False
    level: Literal["low", "high"] = "low"


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def read(**values: object) -> Settings:
    return read_settings({"steps": 2, **values}, Settings, flag)


def test_what_is_not_given_is_as_declared() -> None:
    assert read(share=0.25) == Settings(2, share=0.25)


@pytest.mark.parametrize(
    ("value", "is_on"), [(True, True), (False, False), ("yes", True), ("Off", False)]
)
def test_a_switch_takes_the_words_of_old_yaml(value: object, is_on: bool) -> None:
    assert read(switch=value).switch is is_on


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"steps": 0}, "--steps: expected a whole number from 1 to 64, got 0"),
        ({"steps": "many"}, "--steps: expected a whole number from 1 to 64, got 'many'"),
        ({"share": 0}, "--share: expected a number above 0 and at most 0.5, got 0"),
        ({"wait_ms": "abc"}, "--wait-ms: expected a number above 0 or nothing, got 'abc'"),
        ({"name": True}, "--name: expected a text of 1 to 9 characters, got true; quote it"),
        ({"name": 3}, "got 3; quote it"),
        ({"name": datetime.date(2026, 1, 1)}, "quote it"),
        ({"name": None}, "--name: expected a text of 1 to 9 characters, got nothing"),
        ({"name": ""}, "--name: expected a text of 1 to 9 characters, got ''"),
        ({"level": "loud"}, "--level: expected one of high, low, got 'loud'"),
        ({"switch": "maybe"}, "--switch: expected true or false, got 'maybe'"),
        ({"switch": 1}, "--switch: expected true or false, got 1"),
    ],
)
def test_an_error_names_the_setting_what_it_may_be_and_what_it_was(
    values: dict[str, object], says: str
) -> None:
    with pytest.raises(BadSetting) as error:
        read(**values)
    assert says in str(error.value)
    assert "$." not in str(error.value)


def test_a_setting_that_must_be_given_is_named() -> None:
    with pytest.raises(BadSetting, match=r"^--steps: expected a whole number from 1 to 64, got"):
        read_settings({}, Settings, flag)


def test_an_error_is_not_as_long_as_what_it_is_about() -> None:
    with pytest.raises(BadSetting) as error:
        read(steps="x" * 10_000)
    assert len(str(error.value)) < 200


def test_variables_are_texts() -> None:
    found = read_settings({"steps": "3", "switch": "1"}, Settings, flag, strict=False)
    assert (found.steps, found.switch) == (3, True)


@pytest.mark.parametrize("field", msgspec.structs.fields(Settings), ids=lambda field: field.name)
def test_every_type_has_words(field: msgspec.structs.FieldInfo) -> None:
    assert " " in in_words(field.type)
