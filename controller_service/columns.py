"""Packed columns of the contract, seen through numpy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

U1 = npt.NDArray[np.uint8]
U4 = npt.NDArray[np.uint32]
I4 = npt.NDArray[np.int32]
F4 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_NUMPY_CODES = {"B": "u1", "I": "<u4", "i": "<i4", "f": "<f4"}


class BadColumn(ValueError):
    """A column holds a value that no engine can mean; names it."""


def dtypes(columns: Mapping[str, str]) -> tuple[np.dtype[Any], ...]:
    """Of columns as :mod:`governor_protos.columns` describes them."""
    return tuple(np.dtype(_NUMPY_CODES[code]) for code in columns.values())
