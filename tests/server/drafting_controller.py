"""A controller that decides at random how much is drafted, who sits out or is retracted, and whose
prompts go first. It hears all that the engine says.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import zmq
from governor_protos import PROTOCOL_MAJOR, PROTOCOL_MINOR, decode_to_controller, encode
from governor_protos.columns import unpack
from governor_protos.messages import (
    Band,
    Decision,
    Hello,
    RequestEnd,
    Snapshot,
    StepFeedback,
    StepKind,
    Welcome,
)

LEASE_STEPS = 4

Decide = Callable[[Snapshot, tuple[int, ...]], Decision]
"""What to answer to a snapshot of an engine with these draft lengths."""


@dataclass
class Heard:
    """What the engine has said so far."""

    hello: Hello | None = None
    ended: list[RequestEnd] = field(default_factory=list)
    feedback: list[StepFeedback] = field(default_factory=list)
    asked_first: int = -1
    """The first step that it asked about."""

    @property
    def decode_steps(self) -> list[StepFeedback]:
        """Steps that were this controller's to decide."""
        return [
            step
            for step in self.feedback
            if step.kind == StepKind.DECODE and step.step >= self.asked_first
        ]


def decision(
    snapshot: Snapshot,
    *,
    length: int = -1,
    caps: dict[int, int] | None = None,
    park: list[int] | None = None,
    orders: list[Band] | None = None,
    budget: int = -1,
    prefill: int = -1,
    first: list[int] | None = None,
    retract: list[int] | None = None,
) -> Decision:
    """A decision for a snapshot's step; ``caps``, ``park``, ``first`` and ``retract`` name request
    ids."""
    caps = caps or {}
    return Decision(
        snapshot.for_step,
        LEASE_STEPS,
        array("I", park or []).tobytes(),
        orders or [],
        "test",
        0.0,
        0.0,
        0.0,
        0.0,
        draft_length=length,
        capped=array("I", caps).tobytes(),
        caps=bytes(caps.values()),
        draft_budget=budget,
        prefill_tokens=prefill,
        prefill_first=array("I", first or []).tobytes(),
        retract=array("I", retract or []).tobytes(),
    )


def at_random(seed: int, most: int = 0) -> Decide:
    """Half of the rows sit out, some are retracted, and the others draft any length, half of them
    with a cap; now and then nobody is prefilled, or some tokens are; some who wait go first.

    Args:
        most: draft tokens of a row, for an engine that takes a budget for all of them: every other
            step has one, often a small one.
    """
    rng = random.Random(seed)

    def decide(snapshot: Snapshot, lengths: tuple[int, ...]) -> Decision:
        rows = unpack("I", snapshot.rows.request_id)
        waiting = unpack("I", snapshot.queue.request_id)
        length = rng.choice((-1, *lengths))
        cap = most or max(0, length)
        return decision(
            snapshot,
            length=length,
            caps={row: rng.randint(0, cap) for row in rows if rng.random() < 0.5},
            park=[row for row in rows if rng.random() < 0.5],
            budget=rng.choice((-1, int(rng.random() ** 2 * most * len(rows)))) if most else -1,
            prefill=rng.choice((-1, 0, rng.randint(1, 32))),
            first=rng.sample(list(waiting), rng.randint(0, len(waiting))),
            retract=[row for row in rows if rng.random() < 0.05],
        )

    return decide


@contextlib.contextmanager
def deciding(endpoint: str, decide: Decide) -> Iterator[Heard]:
    """Listen at ``endpoint`` and answer; on return the engine has been told goodbye by silence."""
    heard, stop = Heard(), threading.Event()

    def serve() -> None:
        context = zmq.Context()
        router = context.socket(zmq.ROUTER)
        router.setsockopt(zmq.LINGER, 0)
        router.setsockopt(zmq.ROUTER_HANDOVER, 1)
        router.bind(endpoint)
        lengths: tuple[int, ...] = ()
        while not stop.is_set():
            if not router.poll(5):
                continue
            peer, frame = router.recv_multipart()
            message = decode_to_controller(frame)
            if isinstance(message, Hello):
                heard.hello, lengths = message, tuple(message.draft_lengths)
                welcome = Welcome(PROTOCOL_MAJOR, PROTOCOL_MINOR, "test", "0", "test", 4096)
                router.send_multipart([peer, encode(welcome)])
            elif isinstance(message, Snapshot):
                heard.ended += message.ended
                heard.feedback += message.feedback
                if heard.asked_first < 0:
                    heard.asked_first = message.for_step
                router.send_multipart([peer, encode(decide(message, lengths))])
        router.close()
        context.term()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        deadline_s = time.monotonic() + 30
        while heard.hello is None:
            assert time.monotonic() < deadline_s, "the engine did not connect"
            time.sleep(0.05)
        yield heard
    finally:
        stop.set()
        thread.join()
