"""What every request has had, kept from snapshot to snapshot.

A request keeps its id from the queue to the batch, and back if it is retracted. A policy is pure
and sees one snapshot; what only a series of them tells is kept here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from controller_service.predictors.base import Floats
from controller_service.prefill.queue import PrefillState
from controller_service.service.state import Ints
from controller_service.state import StepState

WINDOW = 8
"""Rounds over which it is seen whether a request's acceptance has settled."""
MOST_ABSENT = 64
"""Snapshots that do not tell of a request, after which it is forgotten. A queue is told in part."""
MOST_KNOWN = 8192
PACE_MEMORY = 0.998
"""Of the time that rounds took, from one snapshot to the next: some 500 rounds."""

_FACTS = np.dtype(
    [
        ("id", "<u4"),
        ("in_batch", "?"),
        ("running", "?"),
        ("attained_s", "<f8"),
        ("age_s", "<f8"),
        ("spread", "<f8"),
        ("rounds", "<i8"),
        ("shares", "<f8", (WINDOW,)),
        ("output", "<i8"),
        ("accepted", "<i8"),
        ("prompt", "<i8"),
        ("limit", "<i8"),
        ("hint", "<i8"),
        ("retractions", "<i8"),
        ("absent", "<i8"),
    ]
)


class Told(NamedTuple):
    """Requests of one snapshot, each once. All of shape ``(n,)``, ids ascending."""

    ids: npt.NDArray[np.uint32]
    running: npt.NDArray[np.bool_]
    """In the batch and advancing: not parked, and past its prefill."""
    in_batch: npt.NDArray[np.bool_]
    waits: npt.NDArray[np.bool_]
    """In the queue, and not in the middle of its prefill."""
    age_s: Floats
    prompt: Ints
    output: Ints
    limit: Ints
    hint: Ints
    """What its client expects it to write; 0: it said nothing."""
    drafted: Ints
    accepted: Ints

    @classmethod
    def of(cls, state: StepState, queue: PrefillState | None) -> Told:
        columns = _of_rows(state)
        if queue is not None and queue.waiting:
            columns = [np.concatenate(pair) for pair in zip(columns, _of_queue(queue), strict=True)]
        # A request in the middle of its prefill is a row as well; the row is told first.
        _, first = np.unique(columns[0], return_index=True)
        return cls(*(column[first] for column in columns))


class ServiceBook:
    """Follows the requests of one engine."""

    def __init__(self) -> None:
        self._facts = np.zeros(0, dtype=_FACTS)  # ids ascending
        self._taken = np.zeros(2)  # seconds that rows ran, and rounds that they got, faded

    @property
    def round_s(self) -> float:
        """Time in the batch that a round has taken of late; 0 before there was any."""
        seconds, rounds = self._taken
        return float(seconds / rounds) if rounds > 0 else 0.0

    def __len__(self) -> int:
        return len(self._facts)

    def of(self, ids: npt.NDArray[np.uint32]) -> npt.NDArray[np.void]:
        """What is known of requests that the newest snapshot told of, shape ``(n,)``.

        ``attained_s``: time in the batch; ``spread``: the least that the share of accepted drafts
        has varied over a window of rounds; ``retractions``; ``prompt``, ``output``, ``limit`` and
        ``hint`` in tokens.
        """
        return self._facts[self._facts["id"].searchsorted(ids)]

    @property
    def present(self) -> npt.NDArray[np.void]:
        """Likewise, of everybody that the newest snapshot told of."""
        here: npt.NDArray[np.void] = self._facts[self._facts["absent"] == 0]
        return here

    def update(self, told: Told, *, speculates: bool) -> None:
        """Take in one snapshot.

        Args:
            speculates: whether the engine drafts; otherwise everybody's acceptance is known.
        """
        self._forget(told.ids)
        self._meet(told, speculates)
        at = self._facts["id"].searchsorted(told.ids)
        facts = self._facts[at]
        passed_s = np.maximum(told.age_s - facts["age_s"], 0.0)
        attained_s = np.where(facts["running"], passed_s, 0.0)
        facts["attained_s"] += attained_s
        facts["age_s"] = told.age_s
        self._time(facts, told, attained_s)
        facts["retractions"] += facts["in_batch"] & told.waits
        if speculates:
            _count_rounds(facts, told)
        facts["output"], facts["accepted"] = told.output, told.accepted
        facts["limit"], facts["hint"] = told.limit, told.hint
        facts["running"], facts["in_batch"] = told.running, told.in_batch
        self._facts["running"] = self._facts["in_batch"] = False
        self._facts[at] = facts

    def _time(self, facts: npt.NDArray[np.void], told: Told, attained_s: Floats) -> None:
        """How long the rows that ran until this snapshot have taken for how many rounds."""
        ran = facts["running"] & told.in_batch & (facts["output"] > 0)
        written, accepted = told.output - facts["output"], told.accepted - facts["accepted"]
        rounds = np.maximum(written - accepted, 0)[ran].sum()
        self._taken = PACE_MEMORY * self._taken + [attained_s[ran].sum(), rounds]

    def _forget(self, ids: npt.NDArray[np.uint32]) -> None:
        """Whoever has not been told of for long."""
        facts = self._facts
        present = np.isin(facts["id"], ids)
        facts["absent"] = np.where(present, 0, facts["absent"] + 1)
        keep = facts["absent"] <= MOST_ABSENT
        if np.count_nonzero(keep) > MOST_KNOWN:
            keep &= present
        if not keep.all():
            self._facts = facts[keep]

    def _meet(self, told: Told, speculates: bool) -> None:
        """Whoever is told of for the first time."""
        new = ~np.isin(told.ids, self._facts["id"])
        if not new.any():
            return
        facts = np.zeros(int(np.count_nonzero(new)), dtype=_FACTS)
        facts["id"], facts["age_s"], facts["prompt"] = (
            told.ids[new],
            told.age_s[new],
            told.prompt[new],
        )
        facts["spread"] = np.inf if speculates else 0.0
        every = np.concatenate([self._facts, facts])
        self._facts = every[every["id"].argsort(kind="stable")]


def _count_rounds(facts: npt.NDArray[np.void], told: Told) -> None:
    """Who was given another round since: how the share of its drafts that was accepted moved."""
    moved = np.flatnonzero((told.output > facts["output"]) & (told.drafted > 0))
    if not moved.size:
        return
    shares = np.roll(facts["shares"][moved], -1, axis=1)
    shares[:, -1] = told.accepted[moved] / told.drafted[moved]
    facts["shares"][moved] = shares
    facts["rounds"][moved] += 1
    spread = np.where(facts["rounds"][moved] >= WINDOW, shares.std(axis=1), np.inf)
    facts["spread"][moved] = np.minimum(facts["spread"][moved], spread)


def _of_rows(state: StepState) -> list[Any]:
    return [
        state.request_id,
        state.running & ~state.deferred,
        state.running,
        np.zeros(state.rows, dtype=np.bool_),
        state.age_s.astype(np.float64),
        np.maximum(state.context_tokens.astype(np.int64) - state.output_tokens, 0),
        state.output_tokens,
        state.max_new_tokens,
        state.expected_tokens,
        state.draft_tokens,
        state.accepted_tokens,
    ]


def _of_queue(queue: PrefillState) -> list[Any]:
    nobody = np.zeros(queue.waiting, dtype=np.bool_)
    return [
        queue.request_id,
        nobody,
        nobody,
        ~queue.started_mask,
        queue.age_s.astype(np.float64),
        queue.prompt_tokens,
        queue.output_tokens,
        queue.max_new_tokens,
        queue.expected_tokens,
        queue.draft_tokens,
        queue.accepted_tokens,
    ]
