"""Real engine ends in processes of their own: one that asks all along, one that is attacked."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from typing import Any

import msgspec
from governor_protos import PROTOCOL_MAJOR, PROTOCOL_MINOR
from governor_protos.columns import ROW_COLUMNS, pack
from governor_protos.messages import Hello, Role, Rows, Snapshot, StepFeedback

from controller_service.parent import end_with_parent
from sglang_patch.breaker import CircuitBreaker
from sglang_patch.link import ControllerLink

STEP_S = 0.01
UNANSWERED_AFTER_S = 1.0
PAUSE_S = 5e-4
CONNECT_WITHIN_S = 30.0
SOUND = "sound"
"""Policy of every valid decision that an attacked engine is sent."""
ROWS = 16

Counts = Any
"""Shared with the process: an array of unsigned 64-bit numbers."""


class Asked(msgspec.Struct, frozen=True):
    """What became of the questions of a healthy engine."""

    asked: int
    answered: int
    late: int
    """Answered, but not before the step was over."""
    unanswered: int


class Heard(msgspec.Struct, frozen=True):
    """What an attacked engine's end made of what it was sent."""

    invalid: int
    decided: int
    """Valid decisions that it took."""
    foreign: int
    """Times that it held a decision that nobody meant."""


class Peer:
    """A process that speaks through a :class:`ControllerLink`, and counts."""

    def __init__(self, process: BaseProcess, counts: Counts, stop: Event) -> None:
        self._process, self._counts, self._stop = process, counts, stop

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    @property
    def has_crashed(self) -> bool:
        return self._process.exitcode not in (None, 0)

    def asked(self) -> Asked:
        return Asked(*self._counts[:4])

    def heard(self) -> Heard:
        return Heard(*self._counts[:3])

    def wait_until_decided(self) -> None:
        """Wait for the first answer, at most ``CONNECT_WITHIN_S``."""
        deadline_s = time.monotonic() + CONNECT_WITHIN_S
        while not self._counts[1] and time.monotonic() < deadline_s:
            time.sleep(STEP_S)

    def stop(self) -> None:
        self._stop.set()
        self._process.join(CONNECT_WITHIN_S)


@contextmanager
def started(work: Callable[[str, Counts, Event], None], endpoint: str) -> Iterator[Peer]:
    """Run ``ask_all_along`` or ``listen`` for as long as the block."""
    context = multiprocessing.get_context("spawn")
    stop, counts = context.Event(), context.Array("Q", 4, lock=False)
    process = context.Process(target=work, args=(endpoint, counts, stop), daemon=True)
    process.start()
    peer = Peer(process, counts, stop)
    try:
        yield peer
    finally:
        peer.stop()
        process.kill()
        process.join()


def ask_all_along(endpoint: str, counts: Counts, stop: Event) -> None:
    """One question a step, and a look whether it is answered in time; counts as :class:`Asked`."""
    end_with_parent()
    link = ControllerLink(endpoint, hello("healthy"), CircuitBreaker(16, 0.25))
    step = 0
    while not stop.is_set():
        start_s = time.perf_counter()
        link.poll(start_s)
        step += 1
        if link.ask(snapshot(step), start_s):
            counts[0] += 1
            _await(link, step, start_s, counts)
        time.sleep(max(0.0, start_s + STEP_S - time.perf_counter()))
    link.close("done")


def _await(link: ControllerLink, step: int, start_s: float, counts: Counts) -> None:
    while not link.has_fresh(step):
        now_s = time.perf_counter()
        if now_s - start_s > UNANSWERED_AFTER_S:
            counts[3] += 1
            return
        time.sleep(PAUSE_S)
        link.poll(now_s)
    counts[1] += 1
    counts[2] += time.perf_counter() - start_s > STEP_S


def listen(endpoint: str, counts: Counts, stop: Event) -> None:
    """Read whatever comes and ask as an engine does; counts as :class:`Heard`."""
    end_with_parent()
    logging.disable(logging.WARNING)  # it tells of every change for the worse: thousands here
    link = ControllerLink(endpoint, hello("attacked"), CircuitBreaker(16, 0.25))
    step = 0
    while not stop.is_set():
        now_s = time.perf_counter()
        bad, before = link.invalid_replies, link.decision
        link.poll(now_s)
        counts[0] = link.invalid_replies
        decision = link.decision
        if decision is not None and decision is not before:
            counts[1] += decision.policy == SOUND
            counts[2] += decision.policy != SOUND
        if link.invalid_replies == bad:
            time.sleep(PAUSE_S)
        step += 1
        link.ask(snapshot(step), now_s)
    link.close("done")


def hello(engine_id: str) -> Hello:
    return Hello(
        PROTOCOL_MAJOR, PROTOCOL_MINOR, engine_id, "1", "0", "0", "model", 1, 0, False, 64,
        1 << 20, 8192, 1, -1, "", [], ["branches"],
    )  # fmt: skip


_COLUMNS: dict[str, list[float]] = {name: [1.0] * ROWS for name in ROW_COLUMNS} | {
    "request_id": list(range(1, ROWS + 1)),
    "role": [float(Role.TRUNK if row % 4 == 0 else Role.OPPORTUNISTIC) for row in range(ROWS)],
    "flags": [0.0] * ROWS,
    "context_tokens": [500.0] * ROWS,
    "group_id": [1.0 + row // 4 for row in range(ROWS)],
}
_PACKED = Rows(
    **{
        name: pack(code, values if code == "f" else map(int, values))
        for name, code in ROW_COLUMNS.items()
        for values in [_COLUMNS[name]]
    }
)


def snapshot(step: int) -> Snapshot:
    feedback = StepFeedback(step - 1, 0, ROWS, 500 * ROWS, 0, STEP_S, 0, 0)
    return Snapshot(step, _PACKED, 8000, 1 << 20, 0, 0, [feedback], 0)
