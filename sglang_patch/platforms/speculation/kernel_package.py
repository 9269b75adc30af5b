"""A stand-in for `sgl_kernel`, SGLang's compiled kernels, while something imports from it.

The package needs CUDA's libraries to be imported at all. Two places of speculation import names
from it unconditionally: the n-gram worker when it is loaded, and the sampler whenever it runs.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import ModuleType

from sglang_patch.platforms.speculation import sampling_ops, tree_ops

_PACKAGE = "sgl_kernel"


@contextlib.contextmanager
def reference_kernels() -> Iterator[None]:
    """Let `sgl_kernel` mean the references, and afterwards what it meant before.

    NOTE: not for longer than it takes. SGLang tells by an attempt to import the package whether
    there are kernels, and would find these few.
    """
    package, speculative = ModuleType(_PACKAGE), ModuleType(f"{_PACKAGE}.speculative")
    vars(package).update(
        speculative=speculative,
        top_k_renorm_prob=sampling_ops.top_k_renorm_prob,
        top_p_renorm_prob=sampling_ops.top_p_renorm_prob,
        tree_speculative_sampling_target_only=sampling_ops.tree_speculative_sampling_target_only,
    )
    vars(speculative).update(
        reconstruct_indices_from_tree_mask=tree_ops.reconstruct_indices_from_tree_mask
    )
    stand_ins = {module.__name__: module for module in (package, speculative)}
    before = {name: sys.modules.get(name) for name in stand_ins}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
