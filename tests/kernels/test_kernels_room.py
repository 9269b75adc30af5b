"""The references stand on torch alone, so that any engine's platform may use them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "kernels/governor_kernels"
ALLOWED = {"__future__", "collections", "typing", "torch", "governor_kernels"}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_a_reference_imports_torch_alone(path: Path) -> None:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    assert found <= ALLOWED


def test_a_reference_does_one_thing() -> None:
    assert all(len(path.read_text().splitlines()) < 150 for path in FOLDER.glob("*.py"))
