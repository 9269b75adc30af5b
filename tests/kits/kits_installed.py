"""Which tests SGLang's kits have, read from the installed sources: to import them takes long."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable
from pathlib import Path

from kit_table import LEFT_OUT, SERVERS


def installed_tests() -> list[str]:
    """`module:class.test` for each test of each kit, and `module` for a kit without any class."""
    sglang = importlib.util.find_spec("sglang")
    assert sglang is not None and sglang.submodule_search_locations
    found: list[str] = []
    for path in sorted(Path(sglang.submodule_search_locations[0], "test/kits").glob("*_kit*.py")):
        tests = [
            f"{path.stem}:{kit.name}.{test.name}"
            for kit in ast.parse(path.read_text()).body
            if isinstance(kit, ast.ClassDef)
            for test in kit.body
            if isinstance(test, ast.FunctionDef) and test.name.startswith("test_")
        ]
        found += tests or [path.stem]
    return found


def without_a_word(tests: Iterable[str]) -> list[str]:
    """Those of ``tests`` that the table neither runs nor leaves out."""
    return [test for test in tests if not _is_run(test) and not _is_left_out(test)]


def _is_run(test: str) -> bool:
    kit, _, name = test.partition(".")
    return any(
        f"{run.module}:{run.mixin}" == kit and (not run.tests or name in run.tests)
        for server in SERVERS
        for run in server.kits
    )


def _is_left_out(test: str) -> bool:
    return any(name in LEFT_OUT for name in (test, test.partition(".")[0], test.partition(":")[0]))
