"""What a peer of an earlier contract puts on the wire: today's frames, cut to what it knew.

Fields are only ever appended, so an earlier minor version is a prefix of each array. How long each
was is what the golden frames under ``tests/protos/golden/`` hold, and a test compares the two.
"""

from __future__ import annotations

from typing import Any

import msgspec
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
    Welcome,
)
from governor_protos.version import PROTOCOL_MINOR

MINORS = range(PROTOCOL_MINOR + 1)

Struct = type[msgspec.Struct]

GROWN: dict[Struct, dict[int, int]] = {
    Hello: {0: 18, 2: 20, 3: 21, 5: 22, 8: 23},
    Snapshot: {0: 8, 2: 9, 5: 10},
    Rows: {0: 14, 1: 15, 3: 17, 7: 18},
    Queue: {5: 11, 6: 13, 7: 14},
    StepFeedback: {0: 8, 2: 9, 3: 11},
    RequestEnd: {2: 9, 7: 10},
    Decision: {0: 9, 3: 13, 4: 14, 5: 16, 6: 17},
}
"""Fields of what has grown, by the minor version that brought them. The rest is as in 1.0."""

KNOBS = {"branches": 0, "drafts": 3, "prefill": 5, "retract": 6}
"""The minor version that brought each actuator."""

_TAGS: dict[str, Struct] = {
    "hello": Hello,
    "welcome": Welcome,
    "refusal": Refusal,
    "snapshot": Snapshot,
    "decision": Decision,
    "goodbye": Goodbye,
}
_NESTED: dict[tuple[Struct, str], Struct] = {
    (Hello, "drafting"): Drafting,
    (Snapshot, "rows"): Rows,
    (Snapshot, "queue"): Queue,
}
_LISTS: dict[tuple[Struct, str], Struct] = {
    (Snapshot, "feedback"): StepFeedback,
    (Snapshot, "ended"): RequestEnd,
    (Decision, "orders"): Band,
}


def as_of(frame: bytes, minor: int) -> bytes:
    """A frame of today's contract as one between peers of which the older speaks 1.``minor``.

    The older of two peers decides what both say: a newer engine's further fields mean nothing to an
    older controller, and a newer controller's answers nothing to an older engine.

    Raises:
        KeyError: the frame is no message of the contract.
    """
    tag, *values = msgspec.msgpack.decode(frame)
    struct = _TAGS[tag]
    cut = _cut(values, struct, minor)
    if "protocol_minor" in struct.__struct_fields__:
        cut[struct.__struct_fields__.index("protocol_minor")] = minor
    if struct is Hello:
        at = struct.__struct_fields__.index("knobs")
        cut[at] = [knob for knob in cut[at] if KNOBS[knob] <= minor]
    return msgspec.msgpack.encode([tag, *cut])


def fields_of(struct: Struct, minor: int) -> int:
    """How many fields a struct had in contract 1.``minor``."""
    grown = GROWN.get(struct)
    if grown is None:
        return len(struct.__struct_fields__)
    return max((count for since, count in grown.items() if since <= minor), default=0)


def _cut(values: list[Any], struct: Struct, minor: int) -> list[Any]:
    kept = values[: fields_of(struct, minor)]
    for at, name in enumerate(struct.__struct_fields__[: len(kept)]):
        if (inner := _NESTED.get((struct, name))) is not None and kept[at] is not None:
            kept[at] = _cut(kept[at], inner, minor)
        elif (item := _LISTS.get((struct, name))) is not None:
            kept[at] = [_cut(one, item, minor) for one in kept[at]]
    return kept
