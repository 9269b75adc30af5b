"""Registering hooks with SGLang's own registry, and checking that they took.

SGLang swallows and logs whatever goes wrong while hooks are applied, so a hook that missed is
silent. Therefore every target is looked up before registration, and every wrapper afterwards.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from sglang_patch.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Hook:
    """One hook: where, how, and the parameters that the target must still have."""

    target: str
    function: Callable[..., Any]
    kind: Literal["after", "around"]
    parameters: tuple[str, ...]
    processes: frozenset[str]
    """Where it must be in place: ``launcher`` (also the tokenizer's process), ``scheduler``."""


_registered: list[Hook] = []


def register_all(hooks: Iterable[Hook]) -> None:
    """Register hooks with SGLang's registry, those that are not registered yet.

    Raises:
        ConfigurationError: a target is gone or takes other parameters, named.
    """
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    hooks = [hook for hook in hooks if hook not in _registered]
    for hook in hooks:
        _require_target(hook)
    for hook in hooks:
        HookRegistry.register(hook.target, hook.function, HookType(hook.kind))
    _registered.extend(hooks)


def apply() -> None:
    """Apply hooks that were registered after SGLang had loaded its plugins."""
    from sglang.srt.plugins.hook_registry import HookRegistry

    HookRegistry.apply_hooks()


def require_applied(process: str) -> None:
    """Check that every registered hook of this process is in place.

    Raises:
        ConfigurationError: naming the targets whose hook did not take.
    """
    missing = [
        hook.target
        for hook in _registered
        if process in hook.processes and not is_applied(hook.target, hook.function)
    ]
    if missing:
        raise ConfigurationError(
            "Governor's hooks did not take on "
            + ", ".join(missing)
            + "; another plugin may have replaced them (see SGLANG_PLUGINS)"
        )


def is_applied(target: str, function: Callable[..., Any]) -> bool:
    """Whether ``target`` calls ``function``, at whatever depth of its wrappers."""
    wrapper = _resolve(target)
    while wrapper is not None:
        for cell in getattr(wrapper, "__closure__", None) or ():
            if cell.cell_contents is function:
                return True
        wrapper = getattr(wrapper, "__wrapped__", None)
    return False


def _require_target(hook: Hook) -> None:
    function = _resolve(hook.target)
    if function is None:
        raise ConfigurationError(f"this SGLang has no {hook.target}: Governor cannot hold on to it")
    found = tuple(inspect.signature(function).parameters)[: len(hook.parameters)]
    if found != hook.parameters:
        raise ConfigurationError(
            f"{hook.target} takes {found}, Governor knows it with {hook.parameters}"
        )


def _resolve(target: str) -> Any:
    owner, _, name = target.rpartition(".")
    try:
        return getattr(pkgutil.resolve_name(owner), name, None)
    except (ImportError, AttributeError):
        return None
