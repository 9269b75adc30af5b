"""The newest decode steps, by batch size, and how well their shapes were known."""

from __future__ import annotations

from collections import deque

import msgspec
import numpy as np

from controller_service.predictors.base import Floats, StepSample

_Shape = tuple[int, int]

MOST_SHAPES = 512


class NewestSteps:
    """The newest ``depth`` decode steps of every power of two of rows."""

    Columns = tuple[Floats, Floats, Floats, Floats]
    """Rows, context tokens, draft tokens, seconds: each of shape ``(n,)``, oldest first."""

    def __init__(self, depth: int = 32) -> None:
        self._depth = depth
        self._by_size: dict[int, deque[tuple[int, StepSample]]] = {}
        self._recent: deque[tuple[StepSample, int]] = deque(maxlen=32)
        """Each with the number of steps of its shape that had been seen before it."""
        self._seen_of: dict[_Shape, int] = {}
        self._seen = 0

    def __len__(self) -> int:
        return sum(len(steps) for steps in self._by_size.values())

    def add(self, sample: StepSample) -> None:
        size = sample.rows.bit_length()
        steps = self._by_size.get(size)
        if steps is None:
            steps = self._by_size[size] = deque(maxlen=self._depth)
        steps.append((self._seen, sample))
        self._seen += 1
        shape = (size, sample.context_tokens.bit_length())
        before = self._seen_of.get(shape, 0)
        if not before and len(self._seen_of) >= MOST_SHAPES:
            self._seen_of.clear()
        self._seen_of[shape] = before + 1
        self._recent.append((sample, before))

    def last(self, count: int) -> Recent:
        """The newest ``count``, at most 32."""
        newest = list(self._recent)[-count:]
        return Recent([seen for _, seen in newest], _columns([step for step, _ in newest]))

    def all(self) -> Columns:
        """Everything that is held, in the order of arrival."""
        held = sorted(
            (entry for steps in self._by_size.values() for entry in steps), key=lambda one: one[0]
        )
        return _columns([step for _, step in held])

    def forget_older(self, newest: int) -> None:
        """Keep the ``newest`` steps alone."""
        kept = [step for step, _ in self._recent][-newest:]
        self._by_size.clear()
        self._recent.clear()
        self._seen_of.clear()
        for step in kept:
            self.add(step)


class Recent(msgspec.Struct, frozen=True):
    """A stretch of steps."""

    seen_before: list[int]
    """How many steps of each one's shape had been seen before it."""
    columns: NewestSteps.Columns

    def known(self, least: int) -> int:
        """Steps whose shape had been seen ``least`` times, before this stretch."""
        return sum(seen - len(self.seen_before) >= least for seen in self.seen_before)


def _columns(steps: list[StepSample]) -> NewestSteps.Columns:
    table = np.array(
        [(step.rows, step.context_tokens, step.draft_tokens, step.latency_s) for step in steps],
        dtype=np.float64,
    ).reshape(-1, 4)
    return table[:, 0], table[:, 1], table[:, 2], table[:, 3]
