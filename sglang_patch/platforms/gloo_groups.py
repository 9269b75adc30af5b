"""Process groups without device communicators, so that ranks on one CPU talk over gloo alone.

SGLang decides inside `GroupCoordinator.__init__` which communicators a group gets, from arguments
that default to CUDA's. Its hook registry is not used here: platforms are initialised while
`model_runner` is still being imported, after the registry has been applied, and a hook that fails
to apply there is only logged.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

DEVICE_COMMUNICATORS = (
    ("use_pynccl",),
    ("use_pymscclpp", "use_mscclpp"),
    ("use_custom_allreduce",),
    ("use_torch_symm_mem_all_reduce",),
)
"""Arguments of `GroupCoordinator.__init__` that each build a communicator for a GPU, with every
name that one has had (up to SGLang 0.5.17, in 0.5.23)."""

_MARK = "__governor_gloo_only__"


def use_gloo_only(coordinator: type) -> None:
    """Make every group that `coordinator` builds from now on do without device communicators.

    Calling it again changes nothing.

    Args:
        coordinator: SGLang's `GroupCoordinator`.

    Raises:
        RuntimeError: its constructor lacks one of the arguments to be switched off; this SGLang is
            not a version that the platform knows.
    """
    construct: Any = vars(coordinator)["__init__"]
    if hasattr(construct, _MARK):
        return
    signature = inspect.signature(construct)
    known = [set(names) & set(signature.parameters) for names in DEVICE_COMMUNICATORS]
    missing = [
        " or ".join(names)
        for names, found in zip(DEVICE_COMMUNICATORS, known, strict=True)
        if not found
    ]
    if missing:
        raise RuntimeError(
            f"{coordinator.__module__}.{coordinator.__qualname__} takes no {', '.join(missing)}: "
            "the reference CPU platform does not know this SGLang version, and a rank would fail "
            "later, in a CUDA library."
        )

    switches = set().union(*known)

    @functools.wraps(construct)
    def construct_with_gloo(*args: Any, **kwargs: Any) -> None:
        bound = signature.bind(*args, **kwargs)
        bound.arguments.update(dict.fromkeys(switches, False))
        construct(*bound.args, **bound.kwargs)

    setattr(construct_with_gloo, _MARK, True)
    setattr(coordinator, "__init__", construct_with_gloo)  # noqa: B010 - mypy forbids the plain form
