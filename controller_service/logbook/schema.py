"""The tables of the log and their columns: one definition for buffers, files and documents."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt
from governor_protos.messages import EndReason, Outcome, StepKind

if TYPE_CHECKING:
    import pyarrow

SCHEMA_VERSION = 1

STEPS, REQUESTS = "steps", "requests"


class Column(msgspec.Struct, frozen=True):
    """One column of a table."""

    name: str
    stored: str
    """Type in a file: ``time``, ``int64``, ``int32``, ``float`` (32 bits), ``bool`` or ``text``."""
    text: str
    words: type[IntEnum] | None = None
    """The words for a small number, for ``text`` that is a number in the buffer. A number that has
    none is a newer engine's, and stored as ``unknown``."""
    needs: str = ""
    """The column that tells whether there is a value here; null where that one is false or 0."""


def _decided(name: str, stored: str, text: str) -> Column:
    return Column(name, stored, text, needs="decided")


def _expected(name: str, stored: str, text: str) -> Column:
    return Column(name, stored, text, needs="expected_s")


STEP_COLUMNS = (
    Column("time", "time", "when the controller heard how the step went, UTC"),
    Column("step", "int64", "SGLang's number of the step, `forward_ct`"),
    Column("kind", "text", "`decode`, `prefill` or `mixed`", StepKind),
    Column("outcome", "text", "what became of the decision, as in the README", Outcome),
    Column("rows", "int32", "rows that advanced"),
    Column("context_tokens", "int32", "KV tokens that they attended to, summed"),
    Column("prefill_tokens", "int32", "prompt tokens computed"),
    Column("draft_tokens", "int32", "draft tokens verified beyond one token a row, summed"),
    Column("parked_rows", "int32", "rows that sat the step out"),
    Column("latency_s", "float", "measured"),
    Column("predictor", "text", "what predicted `expected_s`"),
    Column("predictor_version", "int32", "grows whenever its predictions change"),
    Column("model_id", "text", "the fitted model that it used; empty if none"),
    _expected("expected_s", "float", "predicted for the very shape that ran, before learning it"),
    _expected("expected_p90_s", "float", "predicted to be exceeded by one step in ten"),
    Column("decided", "bool", "whether a decision was made for this very step"),
    _decided("policy", "text", "with its settings"),
    _decided("batch_rows", "int32", "rows of the snapshot, parked ones included, prefill not"),
    _decided("mandatory_rows", "int32", "those that no policy may park"),
    _decided("extra_rows", "int32", "opportunistic rows that were to advance"),
    _decided("decided_parked_rows", "int32", "rows that were to sit the step out"),
    _decided("predicted_step_s", "float", "predicted for the step as decided; 0 if unfitted"),
    _decided("baseline_step_s", "float", "predicted for its mandatory rows alone"),
    _decided("budget_s", "float", "time that the policy allowed the step; 0 if it sets none"),
    _decided("slack_s", "float", "time to the first deadline; negative when it was missed"),
    _decided("decided_version", "int32", "the predictor's version then"),
    _decided("kv_used_tokens", "int32", "KV tokens held"),
    _decided("kv_total_tokens", "int32", "KV tokens that fit"),
    _decided("waiting_requests", "int32", "requests in the queue"),
    _decided("waiting_prefill_tokens", "int32", "their prompt tokens"),
)

REQUEST_COLUMNS = (
    Column("time", "time", "when the controller heard that it ended, UTC"),
    Column("request_id", "int64", "number of the row, unique within one start of the engine"),
    Column("group_id", "int64", "equal numbers are branches of one request; 0: on its own"),
    Column("prompt_tokens", "int32", "tokens of its prompt"),
    Column("output_tokens", "int32", "tokens that it wrote"),
    Column("max_new_tokens", "int32", "tokens that it was allowed"),
    Column("reason", "text", "`stopped`, `length` or `aborted`", EndReason),
    Column("age_s", "float", "from its arrival to its end"),
    Column("draft_tokens", "int32", "draft tokens proposed for it"),
    Column("accepted_tokens", "int32", "how many of them were accepted"),
)

TABLES = {STEPS: STEP_COLUMNS, REQUESTS: REQUEST_COLUMNS}

ORIGIN_COLUMNS = ("engine", "incarnation")
"""What a query sees beside a table's own columns, from the file that a row is in."""

_BUFFER = {"time": "<f8", "int64": "<i8", "int32": "<i4", "float": "<f4", "bool": "?"}


def buffer_dtype(table: str) -> np.dtype[np.void]:
    """One row in memory: the columns in order, then ``origin``, an index into the buffer's.

    ``time`` is the controller's monotonic clock in seconds; ``text`` without words is an index into
    the buffer's texts, with words a number.
    """
    fields = [
        (column.name, _BUFFER.get(column.stored, "u1" if column.words else "<u2"))
        for column in TABLES[table]
    ]
    return np.dtype([*fields, ("origin", "<u2")])


def arrow_schema(table: str) -> pyarrow.Schema:
    """The schema of a file, without the origin that its metadata tells."""
    import pyarrow as pa  # noqa: PLC0415 - the controller does not need it unless it keeps a log

    types = {
        "time": pa.timestamp("us", "UTC"),
        "int64": pa.int64(),
        "int32": pa.int32(),
        "float": pa.float32(),
        "bool": pa.bool_(),
        "text": pa.string(),
    }
    return pa.schema([pa.field(column.name, types[column.stored]) for column in TABLES[table]])


def arrow_table(
    table: str, rows: npt.NDArray[np.void], texts: list[str], clock_offset_s: float
) -> pyarrow.Table:
    """Rows of a buffer as they are stored.

    Args:
        rows: shape ``(n,)``, of :func:`buffer_dtype`.
        texts: what the indices of ``text`` columns mean.
        clock_offset_s: from the controller's monotonic clock to seconds since 1970, UTC.
    """
    import pyarrow as pa  # noqa: PLC0415

    schema = arrow_schema(table)
    columns = []
    for column, field in zip(TABLES[table], schema, strict=True):
        values = rows[column.name]
        valid = rows[column.needs].astype(bool) if column.needs else None
        if column.stored == "text":
            words = texts if column.words is None else _words(column.words)
            index = _array(np.minimum(values, len(words) - 1).astype(np.uint16), pa.uint16(), valid)
            coded = pa.DictionaryArray.from_arrays(index, _strings(words))
            columns.append(coded.cast(pa.string()))
        elif column.stored == "time":
            micros = np.rint((values + clock_offset_s) * 1e6).astype(np.int64)
            columns.append(_array(micros, field.type, valid))
        else:
            columns.append(_array(values, field.type, valid))
    return pa.Table.from_arrays(columns, schema=schema)


def _array(
    values: npt.NDArray[Any], kind: pyarrow.DataType, valid: npt.NDArray[np.bool_] | None
) -> pyarrow.Array:
    """A copy of ``values``, null where not ``valid``.

    NOTE: not ``pyarrow.array``, here or below: its first call imports pandas, if that is installed,
    which takes more than a second of the controller's one interpreter.
    """
    import pyarrow as pa  # noqa: PLC0415

    bits = [None if valid is None else np.packbits(valid, bitorder="little")]
    is_bool = values.dtype == np.bool_
    bits.append(np.packbits(values, bitorder="little") if is_bool else np.array(values))
    buffers = [None if data is None else pa.py_buffer(data) for data in bits]
    return pa.Array.from_buffers(kind, len(values), buffers)


def _strings(words: list[str]) -> pyarrow.Array:
    import pyarrow as pa  # noqa: PLC0415

    encoded = [word.encode(errors="replace") for word in words]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(words), buffers)


def _words(kind: type[IntEnum]) -> list[str]:
    # The contract: an end whose reason is not known counts as aborted.
    beyond = "aborted" if kind is EndReason else "unknown"
    return [*(member.name.lower() for member in kind), beyond]
