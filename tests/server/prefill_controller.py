"""A controller that decides at random how much is prefilled, whose prompts first, who parks
and who is retracted."""

from __future__ import annotations

import random
from array import array
from collections import Counter
from dataclasses import dataclass, field

from drafting_controller import Decide
from governor_protos.columns import unpack
from governor_protos.messages import Band, Decision, QueueFlag, Snapshot

LEASE_STEPS = 4


@dataclass
class Seen:
    """What the engine made of the decisions so far."""

    counts: Counter[str] = field(default_factory=Counter)
    """``held``: steps at which nobody was prefilled though somebody waited; ``held_started``: of
    these, those with a prompt in its middle; ``overtaken``: steps at which others were prefilled
    and that one was not; ``cached``: requests of which the prefix cache held a part while they
    waited; ``retracted``: requests that wait again though they ran before."""
    waited: set[int] = field(default_factory=set)
    """Ids of all that ever waited."""
    ran: set[int] = field(default_factory=set)
    _started: tuple[int, int] = (0, 0)
    _waiting: frozenset[int] = frozenset()

    def note(self, asked: Snapshot) -> None:
        queue = asked.queue
        ids = unpack("I", queue.request_id)
        flags = unpack("B", queue.flags)
        missing = unpack("i", queue.missing_tokens)
        lengths = unpack("i", queue.prompt_tokens)
        assert all(lost > 0 for lost in missing)
        assert sum(1 for flag in flags if flag & QueueFlag.STARTED) <= 1
        rows = set(unpack("I", asked.rows.request_id))
        started = (0, 0)
        if flags and flags[0] & QueueFlag.STARTED:
            started = (ids[0], missing[0])
        waiting = frozenset(ids) - {started[0]}
        joined = self._waiting & rows
        if self._waiting & waiting and not joined and started == self._started:
            self.counts["held"] += 1
            self.counts["held_started"] += bool(started[0])
        if started[0] and started == self._started and joined:
            self.counts["overtaken"] += 1
        self.counts["cached"] += sum(
            1
            for flag, lost, length, request in zip(flags, missing, lengths, ids, strict=True)
            if not flag & QueueFlag.STARTED
            and lost < length
            and request not in self.waited | self.ran
        )
        self.counts["retracted"] += len((waiting - self._waiting) & self.ran)
        self.waited |= waiting
        self.ran |= rows
        self._started, self._waiting = started, waiting


def at_random(seed: int, seen: Seen, *, chunk: int, park: bool = True) -> Decide:
    """Any budget, often none; half of the queue in any order, the started one among them or not."""
    rng = random.Random(seed)

    def tokens() -> int:
        return rng.choice((-1, 0, 0, rng.randint(1, 16), rng.randint(1, chunk), 4 * chunk))

    def decide(asked: Snapshot, lengths: tuple[int, ...]) -> Decision:
        seen.note(asked)
        waiting = list(unpack("I", asked.queue.request_id))
        rows = list(unpack("I", asked.rows.request_id))
        first = rng.sample(waiting, rng.randint(0, len(waiting))) if rng.random() < 0.7 else []
        parked = [row for row in rows if rng.random() < 0.3] if park else []
        retracted = [row for row in rows if rng.random() < 0.1]
        return Decision(
            asked.for_step,
            LEASE_STEPS,
            array("I", parked).tobytes(),
            [Band(1 << 30, -1, -1, prefill_tokens=tokens())],
            "test",
            0.0,
            0.0,
            0.0,
            0.0,
            draft_length=rng.choice((-1, *lengths)),
            prefill_tokens=tokens(),
            prefill_first=array("I", first).tobytes(),
            retract=array("I", retracted).tobytes(),
        )

    return decide
