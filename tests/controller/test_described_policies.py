"""What can be set of a policy, and what an engine can carry out of it."""

from __future__ import annotations

from typing import Annotated

import msgspec
import pytest
from click.testing import CliRunner
from controller_builders import hello_of
from msgspec import Meta
from speculation_builders import drafting_hello

from controller_service.cli import main
from controller_service.policies.base import PolicyKind
from controller_service.policies.described import described, field_docstrings
from controller_service.policies.registry import BUILT_IN, parse_policy
from controller_service.unmet import unmet

KINDS = pytest.mark.parametrize("kind", BUILT_IN.values(), ids=lambda kind: kind.name)


class Quota(msgspec.Struct, frozen=True):
    """Settings of a policy that a package brings."""

    rows: Annotated[int, Meta(ge=0)]
    """Rows that
    may advance."""
    untold: bool = False
    names: list[str] = []


@KINDS
def test_every_setting_has_a_meaning_that_stands_alone(kind: PolicyKind) -> None:
    for setting in described(kind).settings:
        words = setting.meaning.split()
        assert len(words) > 3, f"{kind.name}:{setting.name} says nothing"
        assert words[0] not in ("Likewise", "Nor", "And"), setting


@KINDS
def test_the_example_of_a_policy_can_be_written(kind: PolicyKind) -> None:
    assert parse_policy(described(kind).usage).decides(kind.knob)


def test_defaults_and_bounds_are_those_of_the_struct() -> None:
    told = described(PolicyKind("quota", lambda *_: None, Quota))
    assert [(one.name, one.default, one.may_be, one.meaning) for one in told.settings] == [
        ("rows", None, "a whole number at least 0", "Rows that may advance."),
        ("untold", False, "true or false", ""),
        ("names", [], "a list", ""),
    ]
    assert msgspec.json.encode(told)


def test_a_struct_without_a_source_has_no_meanings() -> None:
    assert field_docstrings(msgspec.defstruct("Made", [("rows", int, 3)])) == {}


def test_a_policy_is_shown_with_all_its_settings_without_a_controller() -> None:
    shown = CliRunner().invoke(main, ["policy", "show", "taper:rho=0.5"])
    assert shown.exit_code == 0
    for words in ("rho", "0.8", "a number from 0 to 1", "Share of the slack that extra rows"):
        assert words in shown.output


def test_a_policy_that_does_not_exist_is_answered_with_those_that_do() -> None:
    shown = CliRunner().invoke(main, ["policy", "show", "tapir"])
    assert (shown.exit_code, "choose one of off, cap" in shown.output) == (1, True)


def test_columns_of_the_list_of_policies_align() -> None:
    listed = CliRunner().invoke(main, ["policy", "list"]).output.splitlines()
    at = [line.index(kind.summary) for line, kind in zip(listed, BUILT_IN.values(), strict=True)]
    assert len(set(at)) == 1


@pytest.mark.parametrize(
    ("policy", "knobs"),
    [
        ("taper_plus", []),
        ("turbospec", ["drafts"]),
        ("adaptive_chunk+taper", ["prefill"]),
        ("laps_sd+adaptive_chunk+turbospec", ["order", "prefill", "drafts"]),
    ],
)
def test_what_an_engine_without_knobs_cannot_carry_out(policy: str, knobs: list[str]) -> None:
    bare = msgspec.structs.replace(hello_of(), knobs=["branches"])
    assert [one.knob for one in unmet(parse_policy(policy), bare)] == knobs


def test_an_engine_that_speculates_carries_out_a_policy_of_drafts() -> None:
    assert unmet(parse_policy("taper_plus+turbospec"), drafting_hello()) == ()
    untold = msgspec.structs.replace(drafting_hello(), drafting=None)
    (one,) = unmet(parse_policy("turbospec"), untold)
    assert one.why == "the engine's drafts cannot be told how long to be"
