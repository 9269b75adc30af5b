"""A request's luck with drafts as its client gives it, in ``custom_params``.

================ ===================================================================
draft_choices    base64: one byte a position of the output; which of the draft's
                 choices is right there, 1 for its first, at most 255
draft_levels     base64: one little-endian float64 a position; the chance that it is
                 the first
================ ===================================================================

Both or neither. The samples of a request with ``n`` above 1 share them. Checked in the tokenizer's
process, so that bad input is a 400 there and never reaches the scheduler.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sglang_patch.emulated.speculation.luck import RowLuck
from sglang_patch.errors import RequestFieldError

CHOICES, LEVELS = "draft_choices", "draft_levels"
MOST_TOKENS = 1 << 17
"""Positions that one request may bring."""
_FLOAT = np.dtype("<f8")
_BYTE = np.dtype("u1")


def encoded(choices: npt.NDArray[np.integer], levels: npt.NDArray[np.float64]) -> dict[str, str]:
    """The two fields.

    Args:
        choices, levels: shape ``(tokens,)``, as for :class:`.luck.RowLuck`.
    """
    return {
        CHOICES: base64.b64encode(choices.astype(_BYTE).tobytes()).decode(),
        LEVELS: base64.b64encode(levels.astype(_FLOAT).tobytes()).decode(),
    }


def luck_of(params: Mapping[str, Any] | None) -> RowLuck | None:
    """The luck that a request brings; None if it brings none.

    Args:
        params: its ``custom_params``.

    Raises:
        RequestFieldError: naming the field.
    """
    if not isinstance(params, Mapping) or (CHOICES not in params and LEVELS not in params):
        return None
    for name, other in ((CHOICES, LEVELS), (LEVELS, CHOICES)):
        if name not in params:
            raise RequestFieldError(other, f"needs {name} beside it")
    choices = _column(CHOICES, params[CHOICES], _BYTE)
    levels = _column(LEVELS, params[LEVELS], _FLOAT)
    if len(choices) != len(levels):
        raise RequestFieldError(
            LEVELS, f"has {len(levels)} positions and {CHOICES} has {len(choices)}: give as many"
        )
    if not choices.all():
        raise RequestFieldError(CHOICES, "holds a 0: choices are counted from 1")
    if not np.all((levels >= 0.0) & (levels <= 1.0)):
        raise RequestFieldError(LEVELS, "chances must be from 0 to 1")
    return RowLuck(choices, levels)


def _column(name: str, value: Any, kind: np.dtype[Any]) -> npt.NDArray[Any]:
    if not isinstance(value, str):
        raise RequestFieldError(name, f"must be a base64 string, not {type(value).__name__}")
    if len(value) > 4 * (MOST_TOKENS * kind.itemsize + 2) // 3:
        raise RequestFieldError(name, f"is too long: at most {MOST_TOKENS} positions")
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestFieldError(name, f"is no base64 ({error})") from None
    if not data or len(data) % kind.itemsize:
        raise RequestFieldError(
            name, f"must hold {kind.itemsize} bytes for each position, got {len(data)} in all"
        )
    return np.frombuffer(data, dtype=kind)
