"""Row columns: how a snapshot carries its rows.

A snapshot is sent every step, so its rows travel as one packed little-endian array per field
(a struct of arrays) rather than as one object per row. At 256 rows that makes decoding some
ten microseconds instead of some hundred, on both sides, and the arrays can be used as they are.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable

ROW_COLUMNS: dict[str, str] = {
    "request_id": "I",
    "group_id": "I",
    "role": "B",
    "flags": "B",
    "context_tokens": "i",
    "output_tokens": "i",
    "max_new_tokens": "i",
    "priority": "i",
    "parked_steps": "i",
    "age_s": "f",
    "since_first_token_s": "f",
    "since_last_token_s": "f",
    "ttft_slo_s": "f",
    "tpot_slo_s": "f",
    "group_output_tokens": "i",
    "draft_tokens": "i",
    "accepted_tokens": "i",
    "expected_tokens": "i",
}
"""Column name -> ``array`` type code: B uint8, I uint32, i int32, f float32."""

QUEUE_COLUMNS: dict[str, str] = {
    "request_id": "I",
    "group_id": "I",
    "flags": "B",
    "missing_tokens": "i",
    "prompt_tokens": "i",
    "output_tokens": "i",
    "max_new_tokens": "i",
    "priority": "i",
    "age_s": "f",
    "ttft_slo_s": "f",
    "tpot_slo_s": "f",
    "draft_tokens": "i",
    "accepted_tokens": "i",
    "expected_tokens": "i",
}
"""Likewise for the requests that wait for their prefill."""

APPENDED_COLUMNS = frozenset(
    {"group_output_tokens", "draft_tokens", "accepted_tokens", "expected_tokens"}
)
"""Columns that came after contract 1.0. A peer that does not know them sends them empty, and so
does an engine that has nothing to say in them: one that does not speculate has no draft columns,
and one whose clients say nothing of lengths has none of those that they expect."""

ITEM_BYTES = {"B": 1, "I": 4, "i": 4, "f": 4}

_SWAP = sys.byteorder == "big"


def pack(typecode: str, values: Iterable[float]) -> bytes:
    """Pack ``values`` as a little-endian column.

    Raises:
        OverflowError: a value does not fit the column's type.
    """
    # NOTE: `array` takes ints and floats alike; its stub cannot say so for a variable type code.
    column = array(typecode, values)  # type: ignore[var-annotated,arg-type]
    if _SWAP:
        column.byteswap()
    return column.tobytes()


def unpack(typecode: str, data: bytes) -> array:  # type: ignore[type-arg]
    """The inverse of :func:`pack`.

    Raises:
        ValueError: ``data`` is not a whole number of items.
    """
    column: array = array(typecode)  # type: ignore[type-arg]
    column.frombytes(data)
    if _SWAP:
        column.byteswap()
    return column
