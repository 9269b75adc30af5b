"""What SGLang can carry of ``custom_params`` to its scheduler.

By default it pickles requests, and any value passes that is not nested too deep. With
``SGLANG_USE_PICKLE_IPC=0`` it packs them by type, and a value of another type ends the scheduler
that unpacks it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from sglang_patch.errors import RequestFieldError


def refuse_uncarried(params: Any) -> None:
    """Refuse parameters that SGLang's scheduler could not unpack.

    Raises:
        RequestFieldError: naming the first such parameter.
    """
    if not isinstance(params, dict) or _pickles():
        return
    kind = _carried_type()
    for name, value in params.items():
        try:
            msgspec.msgpack.decode(msgspec.msgpack.encode({name: value}), type=kind)
        except (
            msgspec.MsgspecError,
            OverflowError,
            RecursionError,
            TypeError,
            ValueError,
        ) as error:
            raise RequestFieldError(
                repr(name)[:64],
                f"{error}; with SGLANG_USE_PICKLE_IPC=0 SGLang carries plain values, and one level "
                "of list or object of plain values",
            ) from error


def _pickles() -> bool:
    from sglang.srt.managers import io_struct

    return bool(io_struct._USE_PICKLE_IPC)


def _carried_type() -> Any:
    from sglang.srt.sampling.sampling_params import CustomParamValue

    return dict[str, CustomParamValue]
