"""Putting a function in the place of one of SGLang's, everywhere that it is bound.

SGLang's own hook registry is not used: it has been applied before the platform learns that the
engine speculates, it only logs a hook that fails to apply, and it wraps what replaces a function,
which breaks the `kernel[grid](...)` of a Triton kernel.
"""

from __future__ import annotations

import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any, NamedTuple


class Replacement(NamedTuple):
    """One function of SGLang's and what takes its place."""

    target: str
    """Dotted path of a function in a module, or of a method in a class."""
    function: Callable[..., Any]
    is_kernel: bool = False
    """A Triton kernel, called as `kernel[grid](...)`."""
    remedy: str = "Leave out --speculative-algorithm."
    """What to do on a version of SGLang that this does not fit."""


class Launchable:
    """A function in a Triton kernel's clothes: `kernel[grid](...)` calls it, once."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __getitem__(self, grid: object) -> Callable[..., Any]:
        return self.function


class _Done(NamedTuple):
    target: str
    original: Any
    replacement: Any


_done: dict[str, _Done] = {}


def replace_all(replacements: Iterable[Replacement]) -> None:
    """Replace functions where they are defined and wherever they have been imported.

    What has been replaced already stays as it is.

    Raises:
        RuntimeError: SGLang has no such function or it takes other parameters; this SGLang is not
            a version that the platform knows. Nothing is replaced then.
    """
    pending = [(item, _require(item)) for item in replacements if item.target not in _done]
    for item, original in pending:
        replacement: Any = Launchable(item.function) if item.is_kernel else item.function
        if original is replacement:
            continue  # where compiling is switched off, a function is its own uncompiled form
        owner, _, name = item.target.rpartition(".")
        setattr(pkgutil.resolve_name(owner), name, replacement)
        for module, bound_name in list(_bindings(original)):
            setattr(module, bound_name, replacement)
        _done[item.target] = _Done(item.target, original, replacement)


def not_in_place() -> list[str]:
    """Names in SGLang that should mean a replacement and mean something else."""
    wrong = []
    for item in _done.values():
        owner, _, name = item.target.rpartition(".")
        if getattr(pkgutil.resolve_name(owner), name, None) is not item.replacement:
            wrong.append(item.target)
        wrong += [f"{module.__name__}.{bound}" for module, bound in _bindings(item.original)]
    return list(dict.fromkeys(wrong))


def _require(item: Replacement) -> Any:
    owner, _, name = item.target.rpartition(".")
    try:
        original = getattr(pkgutil.resolve_name(owner), name)
    except (ImportError, AttributeError) as error:
        raise RuntimeError(
            f"SGLang has no {item.target}: the reference CPU platform does not know this version. "
            f"{item.remedy}"
        ) from error
    found = tuple(inspect.signature(getattr(original, "fn", original)).parameters)
    known = tuple(inspect.signature(item.function).parameters)
    if found != known:
        raise RuntimeError(
            f"{item.target} takes {found}, the reference CPU platform knows it with {known}. "
            f"{item.remedy}"
        )
    return original


def _bindings(original: Any) -> Iterator[tuple[ModuleType, str]]:
    """Every global name in a loaded module of SGLang's that means `original`."""
    for module_name, module in list(sys.modules.items()):
        if not isinstance(module, ModuleType) or not module_name.startswith("sglang."):
            continue
        for name, value in list(vars(module).items()):
            if value is original:
                yield module, name
