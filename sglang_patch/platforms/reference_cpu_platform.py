"""The reference CPU platform itself. Imports torch and SGLang; see `reference_cpu` for its use."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psutil
import torch
from sglang.srt.platforms.interface import PlatformEnum, SRTPlatform

from sglang_patch.platforms.gloo_groups import use_gloo_only
from sglang_patch.platforms.page_ops import allocate_pages_without_kernels
from sglang_patch.platforms.speculation import requirements, workers
from sglang_patch.seams import versions

if TYPE_CHECKING:
    from sglang.srt.server_args import ServerArgs

ATTENTION_BACKEND = "torch_native"
KERNEL_ATTENTION_BACKEND = "intel_amx"
"""What SGLang picks for `--device cpu`; it needs the kernels that this platform does without."""

DTYPE = "float32"
DEFAULT_MAX_TOTAL_TOKENS = 32_768
"""KV tokens unless `--max-total-tokens` says otherwise: host memory is not the engine's alone."""

GRAMMAR_BACKEND = "llguidance"
XGRAMMAR = "xgrammar"
"""SGLang's choice unless `--grammar-backend` says otherwise."""

COMPILE_VARIABLE = "TORCHDYNAMO_DISABLE"
THREAD_BINDING_VARIABLE = "SGLANG_CPU_OMP_THREADS_BIND"


class ReferenceCpuPlatform(SRTPlatform):  # type: ignore[misc]
    """Stock SGLang on plain torch operations, with host memory as device memory."""

    _enum = PlatformEnum.OOT
    device_name = "cpu"
    device_type = "cpu"

    def apply_server_args_defaults(self, server_args: ServerArgs) -> None:
        """Fill what the operator left open with what runs without kernels.

        An explicit `--dtype`, `--attention-backend`, `--grammar-backend` or `--max-total-tokens`
        stands, except the attention backend that cannot run here.

        Raises:
            ValueError: a grammar backend or speculation is asked for that cannot run here.
        """
        if server_args.attention_backend in (None, KERNEL_ATTENTION_BACKEND):
            server_args.attention_backend = ATTENTION_BACKEND
        if server_args.dtype == "auto":
            # 'auto' would narrow a float32 checkpoint to float16, which CPUs only emulate.
            server_args.dtype = DTYPE
        if server_args.grammar_backend is None:
            server_args.grammar_backend = GRAMMAR_BACKEND
        elif server_args.grammar_backend == XGRAMMAR and not versions.runs_xgrammar_on_cpu():
            raise ValueError(
                f"--grammar-backend {XGRAMMAR} pins host memory in SGLang {versions.installed()}, "
                "which needs CUDA: on the reference CPU platform its first grammar would end the "
                f"engine. Leave the option out: the platform uses {GRAMMAR_BACKEND}."
            )
        if not getattr(server_args, "enable_torch_compile", False):
            # The mask of a grammar is applied by a function that torch would compile with the
            # host's C++ compiler, while all requests wait; there may be no compiler at all.
            os.environ.setdefault(COMPILE_VARIABLE, "1")
        if server_args.max_total_tokens is None:
            server_args.max_total_tokens = DEFAULT_MAX_TOTAL_TOKENS
        ranks = bound_ranks(server_args)
        if ranks > 1:
            # SGLang refuses more ranks than NUMA nodes unless the cores are dealt out by hand.
            os.environ.setdefault(THREAD_BINDING_VARIABLE, deal_cores(ranks))
        requirements.refuse_unsupported(server_args)

    def init_backend(self) -> None:
        """Prepare this process; SGLang calls it once while it imports the model runner."""
        from sglang.srt.distributed.parallel_state import GroupCoordinator
        from sglang.srt.mem_cache import kv_cache_configurator
        from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

        use_gloo_only(GroupCoordinator)
        if not hasattr(SRTPlatform, "get_mha_kv_pool_cls"):
            # SGLang 0.5.23 asks a platform for an allocator of larger pages only.
            from sglang_patch.platforms.token_allocator import TokenAllocator

            kv_cache_configurator.TokenToKVPoolAllocator = TokenAllocator
        workers.prepare(SpeculativeAlgorithm)

    def get_default_attention_backend(self) -> str:
        """Name of the attention backend made of torch's scaled dot-product attention."""
        return ATTENTION_BACKEND

    def get_kv_pool_cls(self, *, kind: str) -> type | None:
        """Class of the KV pool for a kind of attention, in SGLang 0.5.23; None: its own."""
        from sglang_patch.platforms.kv_pool import KvPool

        return KvPool if kind == "mha" else None

    def get_mha_kv_pool_cls(self) -> type:
        """Class of the KV pool for multi-head attention, up to SGLang 0.5.17: SGLang's own."""
        from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool

        pool: type = MHATokenToKVPool
        return pool

    def get_paged_allocator_cls(self) -> Callable[..., Any]:
        """What makes the KV allocator for a `page_size`. SGLang calls it as it would a class."""
        return make_allocator

    def get_device(self, device_id: int = 0) -> str:
        """Torch device of a rank; all ranks share the one CPU."""
        return "cpu"

    def set_device(self, device: torch.device) -> None:
        """Do nothing: there is one device."""

    def get_device_name(self, device_id: int = 0) -> str:
        """Name for people."""
        return "cpu"

    def get_device_uuid(self, device_id: int = 0) -> str:
        """Identifier of the one device."""
        return "cpu"

    def get_device_capability(self, device_id: int = 0) -> None:
        """Return None: CPUs have no compute capability."""

    def get_device_total_memory(self, device_id: int = 0) -> int:
        """Physical memory of the host in bytes."""
        return int(psutil.virtual_memory().total)

    def get_current_memory_usage(self, device: torch.device | None = None) -> float:
        """Bytes of host memory in use; SGLang subtracts them from the total."""
        memory = psutil.virtual_memory()
        return float(memory.total - memory.available)

    def get_available_memory(self, device_id: int = 0) -> tuple[int, int]:
        """Free and total host memory in bytes."""
        memory = psutil.virtual_memory()
        return int(memory.available), int(memory.total)

    def get_torch_profiler_activity_str(self) -> str:
        """Name of the profiler's activity in SGLang's profiling requests."""
        return "CPU"

    def get_torch_profiler_activity(self) -> Any:
        """Torch's profiler activity for this device."""
        return torch.profiler.ProfilerActivity.CPU


def make_allocator(size: int, *, page_size: int, **more: Any) -> Any:
    """SGLang's allocator of KV, without kernels.

    Args:
        size: tokens.
        page_size: tokens of a page.
        more: as SGLang's allocators take it.
    """
    if page_size == 1:
        from sglang_patch.platforms.token_allocator import TokenAllocator

        return TokenAllocator(size, **more)
    from sglang.srt.mem_cache.allocator.paged import PagedTokenToKVPoolAllocator

    allocate_pages_without_kernels()
    return PagedTokenToKVPoolAllocator(size, page_size=page_size, **more)


def bound_ranks(server_args: ServerArgs) -> int:
    """How many ranks SGLang binds to cores of their own: those of one replica up to 0.5.17, those
    of all replicas in 0.5.23."""
    from sglang.srt.utils import numa_utils

    ranks = int(server_args.tp_size)
    if "world_size" in inspect.signature(numa_utils.init_threads_binding).parameters:
        ranks *= int(server_args.dp_size)
    return ranks


def deal_cores(ranks: int) -> str:
    """Deal this process's cores out to `ranks` ranks, in the syntax of SGLang's thread binding.

    Ranks share cores where there are fewer cores than ranks.

    Returns:
        Core ids by rank, e.g. `"0,2|1,3"` for two ranks on four cores.
    """
    cores = sorted(os.sched_getaffinity(0))
    hands = [cores[rank::ranks] or [cores[rank % len(cores)]] for rank in range(ranks)]
    return "|".join(",".join(map(str, hand)) for hand in hands)
