"""What a scheduler computes on, for the controller to know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from governor_protos.limits import MAX_GRAPHS

from sglang_patch.emulated import config as emulated_config

if TYPE_CHECKING:
    from sglang.srt.managers.scheduler import Scheduler


def name(scheduler: Scheduler) -> str:
    """Such as ``NVIDIA H200``, ``cpu`` or ``emulated:qwen3-32b-h200``."""
    if emulated_config.load().active:
        from sglang_patch.emulated import runtime

        return runtime.current().device_name
    kind = str(scheduler.server_args.device or "cpu")
    if kind == "cuda":
        import torch

        return str(torch.cuda.get_device_name())
    return kind


def graph_rows(scheduler: Scheduler) -> list[int]:
    """Batch sizes of the decode graphs that were captured, ascending; empty without graphs.

    They are asked of SGLang's runner: the settings name sizes that it may have left out.
    """
    if emulated_config.load().active:
        from sglang_patch.emulated import runtime

        return list(runtime.current().profile.graph_rows)
    runner = getattr(scheduler.tp_worker.model_runner, "decode_cuda_graph_runner", None)
    return sorted(getattr(runner, "capture_bs", ()))[:MAX_GRAPHS]
