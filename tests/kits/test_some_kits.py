"""Some of SGLang's own kits on one governed engine; `make test-sglang-kits` runs all.

The engine parks half of all branches, and each of the kits' requests is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kit_checks import check_kit
from kit_engines import KitEngine, Stage, kit_engine
from kit_table import ABORT_ALL, BASIC_API, JSON, REGEX, SERVERS, Kit
from kits_installed import installed_tests, without_a_word

PLAIN = SERVERS[0]


@pytest.fixture(scope="module")
def governed() -> Iterator[KitEngine]:
    with kit_engine(PLAIN, Stage(governed=True, overlap=False)) as engine:
        yield engine


@pytest.mark.engine
@pytest.mark.parametrize("kit", [BASIC_API, REGEX, JSON, ABORT_ALL], ids=lambda k: k.name)
def test_kits_pass_while_half_of_all_branches_are_parked(
    kit: Kit,
    governed: KitEngine,
    sglang_version: str,
    record_property: Callable[[str, Any], None],
) -> None:
    check_kit(PLAIN, kit, governed, sglang_version, record_property)


def test_every_test_of_a_kit_is_run_or_left_out_with_a_reason() -> None:
    assert len(installed_tests()) > 80
    assert without_a_word(installed_tests()) == []


def test_a_test_that_nobody_has_spoken_of_is_found() -> None:
    new = ["new_kit:NewMixin.test_it", "spec_server_kits:SpecFeatureKit.test_more"]
    assert without_a_word([*new, "lm_eval_kit:LMEvalMixin.test_lm_eval"]) == new
