"""The list of hooks, their registration with SGLang's own registry, and the check that they took.

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
from sglang_patch.seams import decoding, receiving, running, startup, tokenizer

_SCHEDULER = "sglang.srt.managers.scheduler.Scheduler."


@dataclass(frozen=True, slots=True)
class Hook:
    """One hook: where, how, and the parameters that the target must still have."""

    target: str
    function: Callable[..., Any]
    kind: Literal["after", "around"]
    parameters: tuple[str, ...]
    processes: frozenset[str]
    """Where it must be in place: ``launcher`` (also the tokenizer's process), ``scheduler``."""


_LAUNCHER = frozenset({"launcher"})
_IN_SCHEDULER = frozenset({"scheduler"})

HOOKS = (
    Hook(
        "sglang.srt.server_args.ServerArgs.check_server_args",
        startup.after_check_server_args,
        "after",
        ("self",),
        _LAUNCHER,
    ),
    Hook(
        "sglang.srt.server_args.ServerArgs.add_cli_args",
        startup.after_add_cli_args,
        "after",
        ("parser",),
        _LAUNCHER,
    ),
    Hook(
        "sglang.srt.managers.tokenizer_manager.TokenizerManager._create_tokenized_object",
        tokenizer.after_create_tokenized_object,
        "after",
        ("self", "obj"),
        _LAUNCHER,
    ),
    Hook(
        _SCHEDULER + "init_request_dispatcher",
        startup.after_init_request_dispatcher,
        "after",
        ("self",),
        _IN_SCHEDULER,
    ),
    Hook(
        "sglang.srt.managers.scheduler_components.request_receiver."
        "SchedulerRequestReceiver._pull_raw_reqs",
        receiving.after_pull_raw_reqs,
        "after",
        ("self",),
        _IN_SCHEDULER,
    ),
    Hook(
        _SCHEDULER + "update_running_batch",
        decoding.around_update_running_batch,
        "around",
        ("self", "batch"),
        _IN_SCHEDULER,
    ),
    Hook(
        _SCHEDULER + "run_batch",
        running.around_run_batch,
        "around",
        ("self", "batch"),
        _IN_SCHEDULER,
    ),
    Hook(
        _SCHEDULER + "launch_batch_sample_if_needed",
        running.after_launch_batch_sample,
        "after",
        ("self", "batch_result", "cur_batch"),
        _IN_SCHEDULER,
    ),
    Hook(
        _SCHEDULER + "process_batch_result",
        running.after_process_batch_result,
        "after",
        ("self", "batch", "result"),
        _IN_SCHEDULER,
    ),
)


def register_all() -> None:
    """Register every hook with SGLang's registry.

    Raises:
        ConfigurationError: a target is gone or takes other parameters, named.
    """
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    for hook in HOOKS:
        _require_target(hook)
    for hook in HOOKS:
        HookRegistry.register(hook.target, hook.function, HookType(hook.kind))


def require_applied(process: str) -> None:
    """Check that every hook of this process is in place.

    Raises:
        ConfigurationError: naming the targets whose hook did not take.
    """
    missing = [
        hook.target
        for hook in HOOKS
        if process in hook.processes and not is_applied(hook.target, hook.function)
    ]
    if missing:
        raise ConfigurationError(
            "Governor's hooks did not take on "
            + ", ".join(missing)
            + "; another plugin may have replaced them (see SGLANG_PLUGINS)"
        )


def applied() -> Iterable[str]:
    """Targets of this process that carry their hook."""
    return [hook.target for hook in HOOKS if is_applied(hook.target, hook.function)]


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
