"""Valid messages at random, with the contract's borders more often than chance would have it."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from governor_protos import limits
from governor_protos.columns import APPENDED_COLUMNS, ITEM_BYTES, QUEUE_COLUMNS, ROW_COLUMNS
from governor_protos.messages import (
    Band,
    Decision,
    Drafting,
    Goodbye,
    Hello,
    Queue,
    Refusal,
    RequestEnd,
    Rows,
    Snapshot,
    StepFeedback,
    ToController,
    ToEngine,
    Welcome,
)

T = TypeVar("T")


class Source(Protocol):
    """Where choices come from."""

    def integer(self, low: int, high: int) -> int:
        """One of ``low`` to ``high``, both included."""
        ...

    def data(self, size: int) -> bytes: ...


class SeededSource:
    """Equal seeds make equal choices."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def integer(self, low: int, high: int) -> int:
        return self._random.randint(low, high)

    def data(self, size: int) -> bytes:
        return self._random.randbytes(size)


def choice(source: Source, among: Sequence[T]) -> T:
    return among[source.integer(0, len(among) - 1)]


def count(source: Source, low: int = 0, high: int = limits.MAX_COUNT) -> int:
    """Small more often than large, and the borders often."""
    kind = source.integer(0, 7)
    if kind < 5:
        return source.integer(low, min(high, low + (16, 64, 256, 4096, 1 << 17)[kind]))
    return (low, high, source.integer(low, high))[kind - 5]


def seconds(source: Source, low: float = 0.0, high: float = limits.MAX_DURATION_S) -> float:
    kind = source.integer(0, 6)
    if kind < 4:
        return source.integer(0, 1000) * (1e-5, 1e-4, 1e-2, 1.0)[kind]
    return (low, high, 5e-324)[kind - 4]


def text(source: Source, most: int = limits.MAX_TEXT) -> str:
    if not source.integer(0, 15):
        return choice(source, ("", "é" * most, "\0", "../..", 'a"b\n{}', "\U0010ffff" * 9))[:most]
    return f"name-{source.integer(0, 9)}"


def hello(source: Source, engine_id: str | None = None) -> Hello:
    knobs = [name for name in ("branches", "drafts", "prefill", "retract") if source.integer(0, 3)]
    lengths = [count(source, 0, 12) for _ in range(source.integer(0, 6))]
    return Hello(
        choice(source, (1, 1, 1, 1, 1, 1, 1, count(source))),
        count(source),
        text(source) if engine_id is None else engine_id,
        text(source),
        text(source),
        text(source),
        text(source, limits.MAX_MESSAGE),
        count(source),
        count(source),
        _flag(source),
        count(source),
        count(source),
        count(source),
        count(source),
        count(source, -1),
        text(source),
        lengths,
        knobs,
        text(source),
        [count(source) for _ in range(source.integer(0, 4))],
        _drafting(source) if source.integer(0, 2) else None,
        _flag(source),
        text(source),
    )


def snapshot(source: Source, most_rows: int = 12) -> Snapshot:
    step = count(source, 0, limits.MAX_STEP)
    return Snapshot(
        step,
        Rows(**_columns(source, ROW_COLUMNS, source.integer(0, most_rows))),
        count(source),
        count(source),
        count(source),
        count(source),
        [_feedback(source, step) for _ in range(source.integer(0, 3))],
        count(source),
        [_end(source) for _ in range(source.integer(0, 3))],
        Queue(**_columns(source, QUEUE_COLUMNS, source.integer(0, most_rows))),
    )


def decision(source: Source, for_step: int | None = None) -> Decision:
    bounds = sorted({count(source) for _ in range(source.integer(0, 4))})
    capped = source.integer(0, 6)
    return Decision(
        count(source, 0, limits.MAX_STEP) if for_step is None else for_step,
        count(source, 1, limits.MAX_LEASE_STEPS),
        _ids(source),
        [Band(bound, *(count(source, -1) for _ in range(4))) for bound in bounds],
        text(source),
        seconds(source),
        seconds(source),
        seconds(source),
        seconds(source, -limits.MAX_DURATION_S),
        count(source, -1),
        _column(source, "I", capped),
        source.data(capped),
        count(source, -1),
        seconds(source, 0.0, limits.MAX_DRAFT_PRICE),
        count(source, -1),
        _ids(source),
        _ids(source),
    )


def to_controller(source: Source) -> ToController:
    kind = source.integer(0, 8)
    if kind < 2:
        return hello(source)
    return Goodbye(text(source)) if kind == 2 else snapshot(source)


def to_engine(source: Source) -> ToEngine:
    kind = source.integer(0, 8)
    if kind == 0:
        return Welcome(1, count(source), text(source), text(source), text(source), count(source))
    if kind == 1:
        return Refusal(count(source), count(source), text(source), text(source))
    return Goodbye(text(source)) if kind == 2 else decision(source)


def _flag(source: Source) -> bool:
    return bool(source.integer(0, 1))


def _drafting(source: Source) -> Drafting:
    most = limits.MAX_DRAFT_TOKENS
    return Drafting(
        source.integer(0, 2),
        choice(source, (1, 1, 2, 4, most)),
        count(source, 0, most),
        _flag(source),
        _flag(source),
        seconds(source),
    )


def _feedback(source: Source, step: int) -> StepFeedback:
    return StepFeedback(
        max(0, step - source.integer(0, 3)),
        choice(source, (0, 0, 0, 1, 2, 255)),
        count(source),
        count(source),
        choice(source, (0, 0, count(source))),
        seconds(source),
        source.integer(0, 7),
        count(source),
        count(source),
        count(source),
        count(source),
    )


def _end(source: Source) -> RequestEnd:
    return RequestEnd(
        count(source, 0, limits.MAX_NUMBER),
        count(source, 0, limits.MAX_NUMBER),
        count(source),
        count(source),
        count(source),
        source.integer(0, 4),
        seconds(source),
        count(source),
        count(source),
        count(source),
    )


def _columns(source: Source, named: Mapping[str, str], rows: int) -> dict[str, bytes]:
    return {
        name: b""
        if name in APPENDED_COLUMNS and not source.integer(0, 2)
        else _column(source, code, rows)
        for name, code in named.items()
    }


def _ids(source: Source) -> bytes:
    return _column(source, "I", source.integer(0, 6))


_FLOATS = (0.0, 0.01, 1.0, 1e7, -1.0, float("inf"), float("nan"), 3e38)
_INTS = (0, 1, 7, 100, 4096, (1 << 31) - 1, -1, -(1 << 31))


def _column(source: Source, code: str, rows: int) -> bytes:
    """Values that an engine would send, the odd ones that a type can hold, or any bytes."""
    kind = source.integer(0, 3)
    if kind == 0:
        return source.data(rows * ITEM_BYTES[code])
    if code == "f":
        floats = [_FLOATS[source.integer(0, 3 if kind < 3 else 7)] for _ in range(rows)]
        return struct.pack(f"<{rows}f", *floats)
    if code == "i":
        ints = [_INTS[source.integer(0, 4 if kind < 3 else 7)] for _ in range(rows)]
        return struct.pack(f"<{rows}i", *ints)
    small = [source.integer(0, 2 if code == "B" else 40) for _ in range(rows)]
    return struct.pack(f"<{rows}{code}", *small)
