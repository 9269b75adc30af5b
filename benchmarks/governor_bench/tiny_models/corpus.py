"""Training text that every Python brings along: functions of its own standard library."""

from __future__ import annotations

import ast
import functools
import sysconfig
import textwrap
from collections.abc import Iterator
from pathlib import Path

from governor_bench.tiny_models.recipe import Recipe


def functions(recipe: Recipe) -> list[str]:
    """Source of `recipe.functions` functions, dedented, in a fixed order.

    They are taken evenly from all functions of fitting length in the modules at the top of the
    standard library, in order of file name and line.

    Raises:
        RuntimeError: this Python ships too few of its sources.
    """
    shortest, longest = recipe.function_bytes
    found = [source for source in _all_functions() if shortest <= len(source.encode()) <= longest]
    if len(found) < recipe.functions:
        raise RuntimeError(
            f"{_stdlib()} holds {len(found)} functions of {shortest} to {longest} bytes and the "
            f"recipe asks for {recipe.functions}: this Python was installed without the sources "
            "of its standard library. Use one that has them, for example from python.org or uv."
        )
    return [found[index * len(found) // recipe.functions] for index in range(recipe.functions)]


def _stdlib() -> Path:
    return Path(sysconfig.get_path("stdlib"))


@functools.cache  # it takes two seconds
def _all_functions() -> tuple[str, ...]:
    return tuple(
        source for path in sorted(_stdlib().glob("*.py")) for source in _functions_of(path)
    )


def _functions_of(path: Path) -> Iterator[str]:
    source = path.read_text(encoding="utf-8", errors="replace")
    try:
        module = ast.parse(source)
    except SyntaxError:
        return  # some distributions keep templates with a .py name there
    lines = source.splitlines()
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
            yield textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno])) + "\n"
