"""Encoding, and the only way in: bounded, strict decoding.

Both decoders check the frame's size first, then every type and limit, then what a type cannot say
(columns of equal length, ascending bands). They raise :class:`BadFrame` and nothing else.
"""

from __future__ import annotations

import itertools
from typing import TypeVar

import msgspec
from msgspec.structs import astuple

from governor_protos import limits
from governor_protos.columns import APPENDED_COLUMNS, ITEM_BYTES, QUEUE_COLUMNS, ROW_COLUMNS
from governor_protos.messages import (
    Decision,
    Queue,
    Rows,
    Snapshot,
    ToController,
    ToEngine,
    Wire,
)


class BadFrame(ValueError):
    """A frame that breaks the contract; the message names the place and the limit."""


_encoder = msgspec.msgpack.Encoder()
_to_controller: msgspec.msgpack.Decoder[ToController] = msgspec.msgpack.Decoder(ToController)
_to_engine: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine)

_T = TypeVar("_T")


def _checks(
    table: type[Rows] | type[Queue], columns: dict[str, str]
) -> tuple[tuple[str, int, bool], ...]:
    """Of each field: name, bytes of an item, and whether an older peer may leave it out."""
    return tuple(
        (name, ITEM_BYTES[columns[name]], name in APPENDED_COLUMNS)
        for name in table.__struct_fields__
    )


_ROW_CHECKS = _checks(Rows, ROW_COLUMNS)
_QUEUE_CHECKS = _checks(Queue, QUEUE_COLUMNS)


def encode(message: Wire) -> bytes:
    return _encoder.encode(message)


def decode_to_controller(frame: bytes | memoryview) -> ToController:
    """Decode a frame that an engine sent.

    Raises:
        BadFrame: too large, not msgpack, a wrong type, a value out of bounds, uneven columns.
    """
    message = _decode(_to_controller, frame)
    if isinstance(message, Snapshot):
        _check_rows(message.rows)
        _check_queue(message.queue)
    return message


def decode_to_engine(frame: bytes | memoryview) -> ToEngine:
    """Decode a frame that a controller sent.

    Raises:
        BadFrame: too large, not msgpack, a wrong type, a value out of bounds, a torn list of ids,
            bands that do not ascend.
    """
    message = _decode(_to_engine, frame)
    if isinstance(message, Decision):
        _check_decision(message)
    return message


def _decode(decoder: msgspec.msgpack.Decoder[_T], frame: bytes | memoryview) -> _T:
    if len(frame) > limits.MAX_FRAME_BYTES:
        raise BadFrame(f"frame of {len(frame)} bytes; at most {limits.MAX_FRAME_BYTES} are read")
    try:
        return decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadFrame(f"unreadable frame: {error}") from error


def _check_rows(rows: Rows) -> None:
    count = len(rows)
    for column, (name, item_bytes, appended) in zip(astuple(rows), _ROW_CHECKS, strict=True):
        size = len(column)
        if size != count * item_bytes and (size or not appended):
            raise BadFrame(f"rows.{name}: {size} bytes do not hold {count} rows")


def _check_queue(queue: Queue) -> None:
    count = len(queue)
    for column, (name, item_bytes, appended) in zip(astuple(queue), _QUEUE_CHECKS, strict=True):
        size = len(column)
        if size != count * item_bytes and (size or not appended):
            raise BadFrame(f"queue.{name}: {size} bytes do not hold {count} requests")


def _check_decision(decision: Decision) -> None:
    if len(decision.park) % 4:
        raise BadFrame(f"park: {len(decision.park)} bytes are not a whole number of request ids")
    if len(decision.prefill_first) % 4:
        raise BadFrame(
            f"prefill_first: {len(decision.prefill_first)} bytes are not a whole number of "
            "request ids"
        )
    if len(decision.retract) % 4:
        raise BadFrame(
            f"retract: {len(decision.retract)} bytes are not a whole number of request ids"
        )
    if len(decision.capped) != 4 * len(decision.caps):
        raise BadFrame(
            f"capped: {len(decision.capped)} bytes do not name a request for each of "
            f"{len(decision.caps)} caps"
        )
    bounds = [band.max_rows for band in decision.orders]
    if any(a >= b for a, b in itertools.pairwise(bounds)):
        raise BadFrame(f"orders: max_rows must ascend, got {bounds}")
