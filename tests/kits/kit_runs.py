"""Running one of SGLang's kits against an engine, and what came of it."""

from __future__ import annotations

import contextlib
import importlib
import unittest
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import openai
from branch_headers import branches
from company import company
from kit_engines import KitEngine
from kit_table import Kit


@dataclass(frozen=True)
class KitResult:
    tests: tuple[str, ...]
    failed: dict[str, str]
    """Trace of each test that failed."""
    parked_row_steps: int

    def listed(self, table: Mapping[str, str], kit: Kit, version: str) -> dict[str, str]:
        """Tests of the kit that ``table`` names, and why."""
        found: dict[str, str] = {}
        for test in self.tests:
            name = f"{kit.mixin}.{test}"
            reason = table.get(name) or table.get(f"{version} {name}")
            if reason:
                found[test] = reason
        return found


def run_kit(kit: Kit, target: KitEngine) -> KitResult:
    """Run a kit's tests, its requests being branches where the engine is governed."""
    case = _case(kit, target)
    tests = kit.tests or tuple(unittest.TestLoader().getTestCaseNames(case))
    before, result = target.parked_row_steps(), unittest.TestResult()
    beside = contextlib.nullcontext() if kit.crowded or kit.alone else company(target.engine.url)
    with beside:
        for test in tests:
            with branches(f"{kit.mixin}.{test}"):
                case(test).run(result)
    failed = {_test_name(failure): trace for failure, trace in (*result.failures, *result.errors)}
    return KitResult(tests, failed, target.parked_row_steps() - before)


def _case(kit: Kit, target: KitEngine) -> type[unittest.TestCase]:
    """The kit as a test case, with all that any kit reads from the class that mixes it in."""
    from sglang.srt.utils.hf_transformers_utils import get_tokenizer

    url = target.engine.url
    attributes: dict[str, Any] = {
        "base_url": url,
        "model": str(target.model),
        "api_key": "EMPTY",
        "client": openai.Client(api_key="EMPTY", base_url=f"{url}/v1"),
        "tokenizer": get_tokenizer(str(target.model)),
        "process": SimpleNamespace(poll=lambda: None if target.engine.is_running() else 1),
        # The engine is here: what a kit's own fixture would start is not.
        "setUpClass": classmethod(lambda cls: None),
        "tearDownClass": classmethod(lambda cls: None),
        **kit.tuned,
    }
    mixin = getattr(importlib.import_module(f"sglang.test.kits.{kit.module}"), kit.mixin)
    return type(kit.mixin, (mixin, *_fixture(kit), unittest.TestCase), attributes)


def _fixture(kit: Kit) -> tuple[type, ...]:
    if not kit.fixture:
        return ()
    module, _, name = kit.fixture.partition(":")
    return (getattr(importlib.import_module(f"sglang.test.server_fixtures.{module}"), name),)


def _test_name(failure: unittest.TestCase) -> str:
    """Name of the method. A subtest says which test it belongs to."""
    return str(getattr(failure, "test_case", failure)._testMethodName)
