"""Where the emulation holds on to SGLang."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sglang_patch.emulated import runtime
from sglang_patch.emulated.speculation.arguments import NAME as DRAFTS
from sglang_patch.emulated.speculation.fields import luck_of
from sglang_patch.emulated.waiting import DeviceEvent, wait_until
from sglang_patch.errors import ConfigurationError
from sglang_patch.seams.differences.ranks import ranks_of
from sglang_patch.seams.hooks import Hook, require_applied

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import ScheduleBatch
    from sglang.srt.managers.scheduler import Scheduler

MODEL_PACKAGE = "sglang_patch.emulated.models"
MODEL_PACKAGE_VARIABLE = "SGLANG_EXTERNAL_MODEL_PACKAGE"

_SCHEDULER = "sglang.srt.managers.scheduler.Scheduler."
_LAUNCHER = frozenset({"launcher"})
_IN_SCHEDULER = frozenset({"scheduler"})


def prepare() -> None:
    """Offer the emulated model to SGLang, in this process and its children, and its drafts."""
    os.environ.setdefault(MODEL_PACKAGE_VARIABLE, MODEL_PACKAGE)
    from sglang_patch.emulated.speculation.algorithm import register

    register()


def after_check_server_args(returned: Any, server_args: Any) -> None:
    """Launcher: check the hooks, and refuse what is not emulated.

    Raises:
        ConfigurationError: naming the option.
    """
    require_applied("launcher")
    asked = server_args.speculative_algorithm
    if asked not in (None, DRAFTS):
        raise ConfigurationError(
            f"--speculative-algorithm {asked}: the emulated device has no draft model; use "
            f"{DRAFTS}, or leave it out"
        )


def after_create_tokenized_object(
    tokenized: Any, manager: Any, obj: Any, *args: Any, **kwargs: Any
) -> None:
    """Check a request's luck, and refuse log-probabilities that there are none of: those of the
    prompt and, where drafts leave no logits, those of other tokens than the one written.

    Raises:
        ValueError: which SGLang answers with HTTP 400.
    """
    luck_of(getattr(getattr(tokenized, "sampling_params", None), "custom_params", None))
    if not getattr(tokenized, "return_logprob", False):
        return
    if tokenized.logprob_start_len != -1:
        raise ValueError(
            "logprob_start_len: log-probabilities of the prompt are not emulated; leave it out"
        )
    if manager.server_args.speculative_algorithm is not None:
        for name in ("top_logprobs_num", "token_ids_logprob"):
            if getattr(tokenized, name):
                raise ValueError(f"{name}: not emulated together with drafts; leave it out")


def around_run_batch(
    original: Callable[..., Any],
    scheduler: Scheduler,
    batch: ScheduleBatch,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Let a step's results come when the emulated device is done with it.

    As on a GPU, the overlap loop finds out when it takes in the results, and the normal loop
    before this call returns.
    """
    emulation = runtime.current()
    emulation.follows = scheduler.last_batch is not None
    result = original(scheduler, batch, *args, **kwargs)
    end_s = emulation.device.end_s
    if scheduler.enable_overlap:
        result.copy_done = DeviceEvent(end_s)
    else:
        wait_until(end_s)
    return result


def after_init_request_dispatcher(returned: Any, scheduler: Scheduler) -> None:
    """Check the hooks and publish the device's counters."""
    require_applied("scheduler")
    if scheduler.server_args.enable_metrics:
        # SGLang points the Prometheus client at its folder first; importing earlier would miss it.
        from sglang_patch.emulated.metrics import DeviceMetrics

        emulation = runtime.current()
        emulation.metrics = DeviceMetrics(emulation.scale, ranks_of(scheduler).dp_rank)


def after_pull_raw_reqs(requests: list[Any] | None, receiver: Any) -> None:
    """Once an iteration, also while idle: bring the counters up to date."""
    emulation = runtime.current()
    if emulation.metrics is not None:
        emulation.metrics.publish(emulation.device)


HOOKS = (
    Hook(
        "sglang.srt.server_args.ServerArgs.check_server_args",
        after_check_server_args,
        "after",
        ("self",),
        _LAUNCHER,
    ),
    Hook(
        "sglang.srt.managers.tokenizer_manager.TokenizerManager._create_tokenized_object",
        after_create_tokenized_object,
        "after",
        ("self", "obj"),
        _LAUNCHER,
    ),
    Hook(_SCHEDULER + "run_batch", around_run_batch, "around", ("self", "batch"), _IN_SCHEDULER),
    Hook(
        _SCHEDULER + "init_request_dispatcher",
        after_init_request_dispatcher,
        "after",
        ("self",),
        _IN_SCHEDULER,
    ),
    Hook(
        "sglang.srt.managers.scheduler_components.request_receiver."
        "SchedulerRequestReceiver._pull_raw_reqs",
        after_pull_raw_reqs,
        "after",
        ("self",),
        _IN_SCHEDULER,
    ),
)
