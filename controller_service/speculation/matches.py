"""How likely each row's draft is to start right where drafts are looked up in text seen before.

A lookup that finds something says little: one token that was seen somewhere is enough. What a draft
is worth hangs on whether the row is in a stretch of text that has been seen, and then most of the
draft is right, or not, and then none of it is. So a row's expected tokens are the chance that its
draft starts right, kept here, times what a draft is worth that does, kept by :mod:`.estimator`
(TurboSpec, arXiv 2406.14066, verifies only requests with a match gain). Rows come into stretches of
known text and leave them: the chance goes by few lookups, and that of a row that has not been
looked at for a while returns to what is known of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from governor_protos.limits import MAX_DRAFT_TOKENS, MAX_FEEDBACK
from governor_protos.messages import Outcome, StepFeedback, StepKind

from controller_service.speculation.drafting import Floats

Ints = npt.NDArray[np.int64]

FIRST_CHANCE = 0.5
STRENGTH = 1.0
"""Lookups that the average over all is worth to a row."""
ROW_HALF_LIFE = 4.0
"""Lookups after which a row's older record counts half."""
IDLE_HALF_LIFE_STEPS = 32.0
"""Steps without a lookup after which it does."""
ALL_HALF_LIFE = 64.0
ALL_HALF_LIFE_STEPS = 6.0
"""Lookups, and steps of the batch at hand, whichever is more, for the average over all."""
EDGE = 0.01


class Continued(NamedTuple):
    """What came after a right start, in the steps whose drafts had one. Columns of shape
    ``(rows,)``, as an estimator of acceptance takes them."""

    gave: Ints
    drafted: Ints
    """What was asked for: where less was found, the rest is as good as wrong."""
    accepted: Ints


class MatchChances:
    """Rows stay in the order of the newest :meth:`align`."""

    def __init__(self) -> None:
        self._all_right, self._all_looked = FIRST_CHANCE * STRENGTH, STRENGTH
        self._values = np.zeros((2, 0))  # starts that were right, and lookups; faded

    @property
    def mean(self) -> float:
        return self._all_right / self._all_looked

    @property
    def chances(self) -> Floats:
        """Of each row, shape ``(rows,)``."""
        right, looked = self._values
        chance = (right + STRENGTH * self.mean) / (looked + STRENGTH)
        bounded: Floats = np.clip(chance, EDGE, 1.0 - EDGE)
        return bounded

    def align(self, place: npt.NDArray[np.intp], known: npt.NDArray[np.bool_]) -> None:
        """Rows have come, left, or changed places.

        Args:
            place: where each row that is known was before.
            known: per row, whether it was there before.
        """
        values = np.zeros((2, len(known)))
        values[:, known] = self._values[:, place]
        self._values = values

    def learn(self, gave: Ints, accepted: Ints, asked: Ints) -> Continued:
        """Take in what rows have been given since the last call. All of shape ``(rows,)``.

        Args:
            asked: draft tokens that each may have had verified in the steps that have finished;
                none of them may have been found.
        """
        # Each step gives a token and those that were accepted.
        steps = np.clip(gave - accepted, 0, MAX_FEEDBACK)
        looked = np.where(asked > 0, steps, 0)
        each = np.clip(asked // np.maximum(looked, 1), 1, MAX_DRAFT_TOKENS)
        # Of several steps only the sum is told, and a draft that starts right mostly goes on so.
        right = np.minimum(-(-accepted // each), looked)
        idle = 0.5 ** (1.0 / IDLE_HALF_LIFE_STEPS)
        self._values *= np.where(looked > 0, 0.5 ** (looked / ROW_HALF_LIFE), idle)
        self._values += (right, looked)
        new = float(looked.sum())
        fade = 0.5 ** (new / max(ALL_HALF_LIFE, ALL_HALF_LIFE_STEPS * new))
        self._all_right = self._all_right * fade + float(right.sum())
        self._all_looked = self._all_looked * fade + new
        more = np.where(right > 0, accepted - right, 0)
        return Continued(right + more, np.maximum(right * (each - 1), more), more)


class Asked:
    """How many draft tokens each row may have had verified: what was decided, and what of it
    was carried out."""

    def __init__(self) -> None:
        self._capped: dict[int, tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint8]]] = {}

    def decided(self, step: int, capped: bytes, caps: bytes) -> None:
        """A decision for ``step`` caps some rows; columns as in a ``Decision``."""
        self._capped.pop(step, None)
        if not capped:
            return
        ids = np.frombuffer(capped, "<u4")
        order = ids.argsort(kind="stable")
        self._capped[step] = ids[order], np.frombuffer(caps, "u1")[order]
        if len(self._capped) > MAX_FEEDBACK:
            del self._capped[next(iter(self._capped))]

    def finished(
        self, feedback: Sequence[StepFeedback], request_id: npt.NDArray[np.uint32]
    ) -> Ints:
        """Draft tokens that each row may have had in these steps, if it took part in them; shape
        ``(rows,)``."""
        asked = np.zeros(len(request_id), dtype=np.int64)
        for item in feedback:
            capped = self._capped.pop(item.step, None)
            if item.kind != StepKind.DECODE:
                continue
            length = min(item.draft_length, MAX_DRAFT_TOKENS)
            asked += length
            if capped is None or item.outcome != Outcome.APPLIED:
                continue
            ids, caps = capped
            place = np.minimum(ids.searchsorted(request_id), len(ids) - 1)
            fewer = np.where(ids[place] == request_id, caps[place], length).astype(np.int64)
            asked -= length - np.minimum(fewer, length)
        return asked
