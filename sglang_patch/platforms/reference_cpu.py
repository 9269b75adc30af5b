"""Entry point of the reference CPU platform: stock SGLang on any x86-64 CPU, in float32.

SGLang's own CPU engine needs kernels built for the host (`SGLANG_USE_CPU_ENGINE=1`). This platform
needs none: attention, sampling and every fused layer run as plain torch operations, and ranks talk
over gloo. It is for development, tests and continuous integration, where the scheduler is what
matters; it is not fast.

Use it by name; nothing else changes in the launch command:

    SGLANG_PLATFORM=governor_reference_cpu OMP_NUM_THREADS=1 \\
        python -m sglang.launch_server --model-path MODEL --device cpu

`--tp 2` and `--dp 2` work, and so do `--page-size`, the overlap loop (the default) and
`--disable-overlap-schedule`. Give one thread to each engine process (`OMP_NUM_THREADS=1`): OpenMP
threads that wait for a core they share with the tokenizer make a step many times slower. On a host
with a GPU, hide it with `CUDA_VISIBLE_DEVICES=`, since some of SGLang's choices ask torch for CUDA
and not the platform. `--speculative-algorithm` works too: see docs/speculation-cpu.md. So does
structured output (`json_schema`, `regex`, `ebnf`, `response_format`), with `llguidance`, which the
platform chooses; SGLang's own choice, `xgrammar`, pins memory in 0.5.17, which needs CUDA.

The overlap loop on a CPU (SGLang 0.5.17)
-----------------------------------------
Nothing switches it off because the device is a CPU, and nothing here has to keep it on.
`disable_overlap_schedule` is set for a CPU in one place only, `arg_groups/speculative_hook.py`
(`_disable_overlap_schedule_for_cpu`), which runs when a speculative algorithm is chosen; with one,
the engine runs the normal loop whatever the flags say. `torch.cpu` supplies streams and events that
do nothing, so the loop runs in full: plan t, launch t, then process the results of t-1, with one
result queued. The only difference from a GPU is that `launch` returns when the step is *done*:
planning hides behind nothing, and a token leaves the engine after the following step has been
computed. Order of events, relayed tokens and the extra row of a request that has just finished are
those of a GPU.
"""

from __future__ import annotations

import os

PLATFORM_NAME = "governor_reference_cpu"
"""Name of the entry point, and the value of `SGLANG_PLATFORM` that selects this platform."""

PLATFORM_CLASS = "sglang_patch.platforms.reference_cpu_platform.ReferenceCpuPlatform"
"""Dotted path of the class, resolved by SGLang once the platform is selected."""


def activate() -> str | None:
    """Offer the platform to SGLang, but only where an operator asked for it by name.

    SGLang calls this for every installed platform when `SGLANG_PLATFORM` is unset; returning None
    then leaves its own choice of device alone.

    Returns:
        The dotted path of the platform's class, or None if it was not selected.

    Raises:
        RuntimeError: the platform was selected together with SGLang's own CPU engine.
    """
    if os.environ.get("SGLANG_PLATFORM") != PLATFORM_NAME:
        return None
    if os.environ.get("SGLANG_USE_CPU_ENGINE", "0") == "1":
        raise RuntimeError(
            f"SGLANG_PLATFORM={PLATFORM_NAME} and SGLANG_USE_CPU_ENGINE=1 exclude each other: the "
            "second asks for SGLang's compiled CPU kernels, which this platform does without. "
            "Unset SGLANG_USE_CPU_ENGINE."
        )
    return PLATFORM_CLASS
