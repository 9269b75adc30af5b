"""What a command of an entry point does, in one line, read from its source: importing it may take
seconds, or need what is not installed."""

from __future__ import annotations

import ast
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import click

LONGEST = 100
MOST_STEPS = 4
"""Modules from the one that an entry point names to the one that defines what it names."""


def summary_of(point: metadata.EntryPoint) -> str:
    """The first sentence of the docstring of the function behind an entry point.

    Where that cannot be found, whose command it is.
    """
    module, name = point.module, point.attr
    try:
        for _ in range(MOST_STEPS):
            tree = ast.parse(_source_of(module).read_bytes())
            if found := _docstring(tree, name):
                return click.Command(None, help=found).get_short_help_str(LONGEST)
            module, name = _imported_from(tree, name)
    except (OSError, SyntaxError, ValueError, LookupError, ImportError):
        pass  # no source to be read, as in a compiled module: it may be a fine command still
    return f"From {point.dist.name if point.dist else point.module}."


def _source_of(module: str) -> Path:
    """The file of a module. Neither it nor its parents are imported.

    Raises:
        LookupError: there is none.
    """
    top, *inner = module.split(".")
    spec = find_spec(top)
    if spec is None or spec.origin is None:
        raise LookupError(module)
    if not inner:
        return Path(spec.origin)
    for folder in spec.submodule_search_locations or ():
        path = Path(folder, *inner)
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                return file
    raise LookupError(module)


def _docstring(tree: ast.Module, name: str) -> str | None:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return ast.get_docstring(node)
    return None


def _imported_from(tree: ast.Module, name: str) -> tuple[str, str]:
    """Whence ``from MODULE import NAME`` brings a name: the module, and its name there.

    Raises:
        LookupError: no such line, or a relative one.
    """
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return node.module, alias.name
    raise LookupError(name)
