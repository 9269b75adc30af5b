"""Well-formed messages that are untrue or absurd."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
from governor_protos import BadFrame, decode_to_controller, decode_to_engine, encode
from governor_protos.columns import QUEUE_COLUMNS, ROW_COLUMNS, pack, unpack
from governor_protos.limits import (
    MAX_COUNT,
    MAX_DRAFT_PRICE,
    MAX_DURATION_S,
    MAX_ENDED,
    MAX_FEEDBACK,
    MAX_LEASE_STEPS,
    MAX_NUMBER,
    MAX_STEP,
)
from governor_protos.messages import (
    Band,
    Decision,
    Goodbye,
    Hello,
    Refusal,
    RequestEnd,
    Snapshot,
    StepFeedback,
    Welcome,
)

change = msgspec.structs.replace

FLOATS = (math.nan, math.inf, -math.inf, -1.0, 0.0, 1e-30, 1e30, MAX_DURATION_S)
COUNTS = (0, 1, -1, MAX_COUNT, -MAX_COUNT)
REASONS = ("unknown_engine", "invalid_message", "too_many_engines", "made_up")
FINAL_LIES = 0.003
"""Share of lies to an engine that have it run as stock for ten seconds, or end the session."""


class Lies:
    """Lies about an engine that is listened to: what it last said makes them plausible."""

    def __init__(self) -> None:
        self._rows: list[int] = []
        self._queue: list[int] = []
        self._step = 0

    def to_engine(self, frame: bytes, rng: Random) -> bytes | None:
        """A false reply in place of ``frame``."""
        try:
            message = decode_to_engine(frame)
        except BadFrame:
            return None
        if not isinstance(message, Decision):
            return None
        if rng.random() < FINAL_LIES:
            return encode(
                rng.choice(
                    (
                        Goodbye("not true"),
                        Refusal(1, 0, rng.choice(REASONS), "not true"),
                        Welcome(1, 0, "nobody", "0", "nothing", 0),
                    )
                )
            )
        lie: Callable[[Decision, Random], Decision] = rng.choice(
            (
                self._of_another_step,
                self._parks_everybody,
                self._names_nobody,
                self._bands,
                self._prefill,
                self._retracts,
                self._drafts,
                self._too_long_a_lease,
            )
        )
        return encode(lie(message, rng))

    def to_controller(self, frame: bytes, rng: Random) -> bytes | None:
        """A false report in place of ``frame``."""
        try:
            message = decode_to_controller(frame)
        except BadFrame:
            return None
        if isinstance(message, Hello):
            return encode(change(message, incarnation=f"lie-{rng.getrandbits(32)}", knobs=[]))
        if not isinstance(message, Snapshot):
            return None
        self._step = message.for_step
        self._rows = list(unpack("I", message.rows.request_id))
        self._queue = list(unpack("I", message.queue.request_id))
        lie: Callable[[Snapshot, Random], Snapshot] = rng.choice(
            (
                _wrong_step,
                _noise_in_a_column,
                _values_in_a_column,
                _memory,
                _feedback,
                _ends,
                _queue,
            )
        )
        return encode(lie(message, rng))

    def _of_another_step(self, told: Decision, rng: Random) -> Decision:
        step = rng.choice((0, told.for_step - 1, told.for_step + rng.randrange(1, 9), MAX_STEP))
        return change(told, for_step=max(0, step), park=self._all_rows())

    def _parks_everybody(self, told: Decision, rng: Random) -> Decision:
        times = rng.randrange(1, 3)
        return change(told, park=(self._all_rows() * times)[: 4 * 4096])

    def _names_nobody(self, told: Decision, rng: Random) -> Decision:
        strangers = pack("I", [rng.randrange(MAX_NUMBER) for _ in range(64)])
        return change(told, park=strangers, prefill_first=strangers, retract=strangers)

    def _bands(self, told: Decision, rng: Random) -> Decision:
        bands = [
            Band(bound, *(rng.choice((-1, 0, 1, MAX_COUNT)) for _ in range(4)))
            for bound in sorted(rng.sample(range(MAX_COUNT), rng.randrange(0, 5)))
        ]
        step = max(0, told.for_step - rng.randrange(2))
        return change(told, for_step=step, orders=bands, lease_steps=MAX_LEASE_STEPS)

    def _prefill(self, told: Decision, rng: Random) -> Decision:
        first = rng.sample(self._queue, len(self._queue)) + self._rows[:4]
        tokens = rng.choice((0, 1, 7, MAX_COUNT))
        return change(told, prefill_tokens=tokens, prefill_first=pack("I", first[:1024]))

    def _retracts(self, told: Decision, rng: Random) -> Decision:
        some = [row for row in self._rows if rng.random() < rng.choice((0.1, 1.0))]
        return change(told, retract=pack("I", some), park=self._all_rows())

    def _drafts(self, told: Decision, rng: Random) -> Decision:
        caps = bytes(rng.randrange(256) for _ in self._rows)
        return change(
            told,
            draft_length=rng.choice((0, 1, MAX_COUNT)),
            capped=self._all_rows(),
            caps=caps,
            draft_budget=rng.choice((-1, 0, 1, MAX_COUNT)),
            draft_price=rng.choice((0.0, MAX_DRAFT_PRICE)),
        )

    def _too_long_a_lease(self, told: Decision, rng: Random) -> Decision:
        return change(told, lease_steps=MAX_LEASE_STEPS + rng.randrange(1, 10**6))

    def _all_rows(self) -> bytes:
        return pack("I", self._rows)


def _wrong_step(said: Snapshot, rng: Random) -> Snapshot:
    steps = (0, said.for_step + 1000, max(0, said.for_step - rng.randrange(1, 50)), MAX_STEP)
    return change(said, for_step=rng.choice(steps))


def _noise_in_a_column(said: Snapshot, rng: Random) -> Snapshot:
    name = rng.choice(list(ROW_COLUMNS))
    size = len(getattr(said.rows, name))
    return change(said, rows=change(said.rows, **{name: rng.randbytes(size)}))


def _values_in_a_column(said: Snapshot, rng: Random) -> Snapshot:
    name, code = rng.choice(list(ROW_COLUMNS.items()))
    if not getattr(said.rows, name):
        return _wrong_step(said, rng)
    return change(said, rows=change(said.rows, **{name: _values(code, len(said.rows), rng)}))


def _queue(said: Snapshot, rng: Random) -> Snapshot:
    name, code = rng.choice(list(QUEUE_COLUMNS.items()))
    if not getattr(said.queue, name):
        return _values_in_a_column(said, rng)
    return change(said, queue=change(said.queue, **{name: _values(code, len(said.queue), rng)}))


def _values(code: str, count: int, rng: Random) -> bytes:
    """A column of extreme values, of ids that are all the same, or of flags that are all set."""
    one: Any = rng.choice(FLOATS if code == "f" else COUNTS)
    if code in "BI":
        one = rng.choice((0, 1, 255 if code == "B" else MAX_NUMBER))
    return pack(code, [one] * count)


def _memory(said: Snapshot, rng: Random) -> Snapshot:
    used, total, waiting, prefill = (rng.choice((0, 1, MAX_COUNT)) for _ in range(4))
    return change(
        said,
        kv_used_tokens=used,
        kv_total_tokens=total,
        waiting_requests=waiting,
        waiting_prefill_tokens=prefill,
    )


def _feedback(said: Snapshot, rng: Random) -> Snapshot:
    def count() -> int:
        return rng.choice((0, 1, MAX_COUNT))

    steps = [
        StepFeedback(
            rng.randrange(MAX_STEP),
            rng.choice((0, 2, 255)),
            count(),
            count(),
            count(),
            rng.choice((0.0, 1e-12, MAX_DURATION_S)),
            rng.choice((0, 5, 255)),
            count(),
            count(),
            count(),
            count(),
        )
        for _ in range(rng.randrange(1, MAX_FEEDBACK + 1))
    ]
    return change(said, feedback=steps)


def _ends(said: Snapshot, rng: Random) -> Snapshot:
    def count() -> int:
        return rng.choice((0, 5, MAX_COUNT))

    ends = [
        RequestEnd(
            rng.randrange(MAX_NUMBER),
            rng.randrange(MAX_NUMBER),
            count(),
            count(),
            count(),
            rng.choice((0, 2, 255)),
            rng.choice((0.0, 1.0, MAX_DURATION_S)),
            count(),
            count(),
            count(),
        )
        for _ in range(rng.randrange(1, MAX_ENDED + 1))
    ]
    return change(said, ended=ends)
