"""The moment at which speculation is put in place: when SGLang asks for a worker's class.

By then the arguments are known and SGLang's modules are loaded, and neither KV pools nor attention
backends exist yet.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import shutil
from typing import Any

logger = logging.getLogger(__name__)

_MARK = "__governor_reference_speculation__"

MOVE_KV_VARIABLE = "SGLANG_NATIVE_MOVE_KV_CACHE"
COMPILER_VARIABLE = "CXX"
COMPILER = "c++"
COMPILER_FLAGS = "-include cstddef"
"""The n-gram corpus uses `size_t` without its header, which newer compilers do not forgive."""


def prepare(algorithm: type) -> None:
    """Have speculation put in place before `algorithm` hands out a worker's class.

    Calling it again changes nothing.

    Args:
        algorithm: SGLang's `SpeculativeAlgorithm`.

    Raises:
        RuntimeError: this SGLang creates workers in another way.
    """
    create: Any = vars(algorithm).get("create_worker")
    if hasattr(create, _MARK):
        return
    if create is None or list(inspect.signature(create).parameters) != ["self", "server_args"]:
        raise RuntimeError(
            f"{algorithm.__module__}.{algorithm.__qualname__} has no create_worker(server_args): "
            "the reference CPU platform does not know this SGLang version."
        )

    @functools.wraps(create)
    def create_worker(self: Any, server_args: Any) -> Any:
        return _in_place(create, self, server_args)

    setattr(create_worker, _MARK, True)
    setattr(algorithm, "create_worker", create_worker)  # noqa: B010 - mypy forbids the plain form


def _in_place(create: Any, algorithm: Any, server_args: Any) -> Any:
    from sglang_patch.platforms.speculation import requirements
    from sglang_patch.platforms.speculation.catalogue import put_in_place
    from sglang_patch.platforms.speculation.kernel_package import reference_kernels
    from sglang_patch.platforms.speculation.self_check import require_in_place

    # Again, for engines that were not started through the launcher.
    requirements.refuse_unsupported(server_args)
    # SGLang moves accepted KV with a Triton kernel unless told otherwise; read with the KV pool.
    os.environ[MOVE_KV_VARIABLE] = "1"
    put_in_place()
    with reference_kernels():
        worker = create(algorithm, server_args)
    if algorithm.is_ngram():
        load_ngram_corpus()
    require_in_place()
    logger.info("Governor: %s speculates on plain torch operations", algorithm.name)
    return worker


def load_ngram_corpus() -> None:
    """Compile SGLang's n-gram corpus, or load it if that was done before.

    Raises:
        RuntimeError: there is no C++ compiler.
    """
    from sglang.kernels.ops.speculative.ngram_corpus import get_ngram_corpus_cls

    chosen = os.environ.get(COMPILER_VARIABLE)
    compiler = chosen or COMPILER
    if shutil.which(compiler.split()[0]) is None:
        raise RuntimeError(
            f"NGRAM compiles SGLang's corpus and finds no compiler {compiler!r}: install one, or "
            f"name it in {COMPILER_VARIABLE}."
        )
    # Only for the compilation: torch reads the same variable and takes no flags in it.
    os.environ[COMPILER_VARIABLE] = f"{compiler} {COMPILER_FLAGS}"
    try:
        get_ngram_corpus_cls()
    finally:
        if chosen is None:
            del os.environ[COMPILER_VARIABLE]
        else:
            os.environ[COMPILER_VARIABLE] = chosen
