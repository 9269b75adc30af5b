"""What goes wrong with a frame: one mutation of a valid one, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from governor_protos import encode, limits

from governor_bench.frames import drawing
from governor_bench.frames.drawing import Source, choice
from governor_bench.frames.judge import To, problem_of

Fields = list[Any]
"""A message as plain values: its tag, then its fields."""

_ODD: tuple[Any, ...] = (
    None, True, -1, 1 << 31, 1 << 32, 1 << 53, (1 << 64) - 1, -(1 << 63), 0.5, -1.0, 1e8,
    float("nan"), float("inf"), float("-inf"), "text", b"bytes", [], {}, {"a": 1},
    msgspec.msgpack.Ext(5, b"ext"),
)  # fmt: skip
_HUGE = (
    b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff", b"\xdc\xff\xff", b"\xc9\xff\xff\xff\xff\x01",
)  # fmt: skip
"""Arrays, maps, bytes, texts and extensions that say they go on for gigabytes."""


class Mutant(msgspec.Struct, frozen=True):
    """A message that breaks the contract."""

    kind: str
    frames: list[bytes]
    """One, except where their number is what is wrong."""


class Mutator:
    """Makes malformed messages of one direction. Equal sources make equal ones.

    Args:
        to: which way they go.
    """

    def __init__(self, source: Source, to: To) -> None:
        self._source, self._to = source, to
        self._kinds = list(KINDS.items())
        self.skipped = 0
        """Mutations that happened to be valid, and were not used."""

    def next(self) -> Mutant:
        while True:
            name, mutate = choice(self._source, self._kinds)
            mutant = mutate(self._source, self._valid())
            frames = mutant if isinstance(mutant, list) else [mutant]
            if name == "other direction":
                frames = [encode(_drawn(self._source, _OTHER[self._to]))]
            if len(frames) != 1 or problem_of(frames[0], self._to):
                return Mutant(name, frames)
            self.skipped += 1

    def _valid(self) -> bytes:
        return encode(_drawn(self._source, self._to))


_OTHER = {To.CONTROLLER: To.ENGINE, To.ENGINE: To.CONTROLLER}


def _drawn(source: Source, to: To) -> Any:
    return drawing.to_controller(source) if to is To.CONTROLLER else drawing.to_engine(source)


def _truncated(source: Source, frame: bytes) -> bytes:
    return frame[: source.integer(0, len(frame) - 1)]


def _flipped(source: Source, frame: bytes) -> bytes:
    harmed = bytearray(frame)
    for _ in range(source.integer(1, 8)):
        harmed[source.integer(0, len(harmed) - 1)] ^= 1 << source.integer(0, 7)
    return bytes(harmed)


def _spliced(source: Source, frame: bytes) -> bytes:
    at = source.integer(0, len(frame))
    return frame[:at] + source.data(source.integer(1, 16)) + frame[at:]


def _longer(source: Source, frame: bytes) -> bytes:
    return frame + source.data(source.integer(1, 64))


def _noise(source: Source, frame: bytes) -> bytes:
    return source.data(source.integer(0, 256))


def _empty(source: Source, frame: bytes) -> bytes:
    return b""


def _huge_length(source: Source, frame: bytes) -> bytes:
    at = source.integer(0, len(frame) - 1)
    return frame[:at] + choice(source, _HUGE) + frame[at + source.integer(0, 1) :]


def _other_value(source: Source, frame: bytes) -> bytes:
    fields = _fields(frame)
    place, at = _somewhere(source, fields)
    place[at] = choice(source, _ODD)
    return _encoded(fields)


def _over_the_limit(source: Source, frame: bytes) -> bytes:
    """A text, a column or a list that goes on beyond what the contract allows."""
    fields = _fields(frame)
    place, at = _somewhere(source, fields)
    value = place[at]
    if isinstance(value, str):
        place[at] = "x" * (limits.MAX_TEXT + source.integer(1, limits.MAX_MESSAGE))
    elif isinstance(value, bytes):
        place[at] = bytes(4 * limits.MAX_ROWS + source.integer(1, 64))
    elif isinstance(value, list):
        place[at] = value * (limits.MAX_GRAPHS + 1) if value else [0] * (limits.MAX_GRAPHS + 1)
    else:
        place[at] = choice(source, (1 << 53, (1 << 64) - 1, -(1 << 40), 1e300, -1e300))
    return _encoded(fields)


def _uneven(source: Source, frame: bytes) -> bytes:
    """Columns of unequal length, or ids that are torn."""
    fields = _fields(frame)
    columns = [
        (place, at)
        for place in _lists(fields)
        for at, value in enumerate(place)
        if isinstance(value, bytes)
    ]
    if not columns:
        return frame
    place, at = choice(source, columns)
    place[at] = (place[at] + source.data(source.integer(1, 5)))[source.integer(0, 3) :]
    return _encoded(fields)


def _too_few(source: Source, frame: bytes) -> bytes:
    fields = _fields(frame)
    place = choice(source, [found for found in _lists(fields) if found])
    del place[source.integer(0, len(place) - 1) :]
    return _encoded(fields)


def _deep(source: Source, frame: bytes) -> bytes:
    """Nested in a field, or behind all that are known."""
    depth = choice(source, (8, 64, 512, 2000, 20_000))
    nested = choice(source, (b"\x91", b"\x81\xa1a")) * depth + b"\xc0"
    fields = _fields(frame)
    at = source.integer(1, len(fields))
    head, tail = fields[:at], fields[at + 1 :]
    start = b"\xdc" + (len(head) + 1 + len(tail)).to_bytes(2, "big")
    return start + b"".join(map(_encoded, head)) + nested + b"".join(map(_encoded, tail))


def _wrong_tag(source: Source, frame: bytes) -> bytes:
    fields = _fields(frame)
    fields[0] = choice(source, ("Hello", "", "x" * 300, "decision\0", 7, None, b"hello", ["hello"]))
    return _encoded(fields)


def _no_array(source: Source, frame: bytes) -> bytes:
    fields = _fields(frame)
    return _encoded(choice(source, (dict(enumerate(fields)), fields[0], None, 7, [], [fields])))


def _large(source: Source, frame: bytes) -> bytes:
    """As large as a frame may be: rare, as it takes as long as hundreds of others."""
    if source.integer(0, 99):
        return _longer(source, frame)
    fill = limits.MAX_FRAME_BYTES - len(frame) - source.integer(0, 64)
    return choice(source, (frame + bytes(fill), b"\xdd\x00\x0f\xff\x00" + bytes(fill)))


def _several_frames(source: Source, frame: bytes) -> list[bytes]:
    return choice(
        source,
        ([frame, frame], [frame, b""], [b"", frame], [b"", b"", b""], [frame[:9]] * 40),
    )


KINDS: dict[str, Callable[[Source, bytes], bytes | list[bytes]]] = {
    "truncated": _truncated,
    "bits flipped": _flipped,
    "spliced": _spliced,
    "bytes behind": _longer,
    "noise": _noise,
    "empty": _empty,
    "huge length": _huge_length,
    "other value": _other_value,
    "over the limit": _over_the_limit,
    "uneven columns": _uneven,
    "too few fields": _too_few,
    "deep": _deep,
    "wrong tag": _wrong_tag,
    "no array": _no_array,
    "large": _large,
    "several frames": _several_frames,
    "other direction": _empty,
}


def _fields(frame: bytes) -> Fields:
    fields: Fields = msgspec.msgpack.decode(frame)
    return fields


def _encoded(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


def _lists(value: Any) -> list[Fields]:
    """A list and all lists in it."""
    if not isinstance(value, list):
        return []
    return [value, *(found for inner in value for found in _lists(inner))]


def _somewhere(source: Source, fields: Fields) -> tuple[Fields, int]:
    """A place below the tag: a field, or something in one."""
    lists = _lists(fields)
    place = lists[0] if source.integer(0, 1) else choice(source, [one for one in lists if one])
    first = 1 if place is fields else 0
    return place, source.integer(first, len(place) - 1)
