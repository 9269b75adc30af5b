"""Bounded memories of measured steps. Arrays are preallocated: observing makes no garbage."""

from __future__ import annotations

import numpy as np

from controller_service.predictors.base import Floats, StepSample

Design = tuple[Floats, Floats, Floats]
"""Rows, context tokens and latency in seconds, each of shape ``(n,)``."""

WeightedDesign = tuple[Floats, Floats, Floats, Floats]
"""The same, and a weight up to 1."""


class Window:
    """The last ``size`` samples, in no particular order."""

    def __init__(self, size: int) -> None:
        self._values = np.zeros((4, size))
        self._seen = 0

    def __len__(self) -> int:
        return min(self._seen, self._values.shape[1])

    def add(self, sample: StepSample) -> None:
        self._values[:, self._seen % self._values.shape[1]] = (
            sample.rows,
            sample.context_tokens,
            sample.latency_s,
            sample.prefill_tokens,
        )
        self._seen += 1

    def design(self) -> Design:
        rows, context, latency, _ = self._values[:, : len(self)]
        return rows, context, latency

    def prefill_tokens(self) -> Floats:
        """Shape ``(n,)``, in the order of :meth:`design`."""
        return self._values[3, : len(self)]


HALF_LIFE_STEPS = 1024
LEAST_WEIGHT = 0.01


class RegimeBuffer:
    """The last samples of every regime, so that a common one cannot push a rare one out.

    A regime is a pair of powers of two: rows and summed context. Each keeps its newest ``depth``
    samples; past ``regimes`` of them, the one that was seen longest ago is forgotten. Samples lose
    half their weight every ``HALF_LIFE_STEPS``: what was seen long ago still says how batches of
    another size compare, but does not outvote what the machine does now.
    """

    def __init__(self, regimes: int = 128, depth: int = 32) -> None:
        self._values = np.zeros((4, regimes, depth))
        self._counts = np.zeros(regimes, dtype=np.int64)
        self._slots: dict[tuple[int, int], int] = {}  # least recently seen first
        self._depth = depth
        self._held = 0
        self._seen = 0

    def __len__(self) -> int:
        return self._held

    def add(self, sample: StepSample) -> None:
        regime = (sample.rows.bit_length(), sample.context_tokens.bit_length())
        slot = self._slots.pop(regime, None)
        if slot is None:
            slot = self._free_slot()
        self._slots[regime] = slot
        count = int(self._counts[slot])
        self._values[:, slot, count % self._depth] = (
            sample.rows,
            sample.context_tokens,
            sample.latency_s,
            self._seen,
        )
        self._seen += 1
        self._counts[slot] = count + 1
        self._held += count < self._depth

    def design(self, outlier_factor: float) -> WeightedDesign:
        """All samples but the outliers: those further than ``outlier_factor`` from their regime's
        median, up or down.

        The test is made here and not on arrival, so that a lasting change of speed moves the
        median and is learnt, while a pause of the machine is not.
        """
        used = len(self._slots)
        held = np.minimum(self._counts[:used], self._depth)
        latency = self._values[2, :used]
        present = np.arange(self._depth) < held[:, None]
        ordered = np.sort(np.where(present, latency, np.inf), axis=1)
        median = ordered[np.arange(used), (held - 1) // 2]
        high, low = outlier_factor * median[:, None], median[:, None] / outlier_factor
        keep = present & (latency <= high) & (latency >= low)
        rows, context, latency, arrival = self._values[:, :used][:, keep]
        weight = np.exp2((arrival - self._seen) / HALF_LIFE_STEPS)
        return rows, context, latency, np.maximum(weight, LEAST_WEIGHT)

    def _free_slot(self) -> int:
        if len(self._slots) < len(self._counts):
            return len(self._slots)
        slot = self._slots.pop(next(iter(self._slots)))
        self._held -= min(int(self._counts[slot]), self._depth)
        self._counts[slot] = 0
        return slot
