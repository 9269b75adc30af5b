"""Bounded memories of measured steps. Arrays are preallocated: observing makes no garbage."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from controller_service.predictors.base import NO_DRAFTING, Floats, StepSample

Design = tuple[Floats, Floats, Floats]
"""Rows, context tokens and latency in seconds, each of shape ``(n,)``. A draft token counts as a
row: it is one more token in every matrix product."""

WeightedDesign = tuple[Floats, Floats, Floats, Floats]
"""The same, and a weight up to 1."""

DraftedDesign = tuple[Floats, Floats, Floats, Floats, Floats]
"""Rows, context tokens, draft tokens, latency and weight."""


class Window:
    """The last ``size`` samples, in no particular order."""

    def __init__(self, size: int) -> None:
        self._values = np.zeros((4, size))
        self._seen = 0

    def __len__(self) -> int:
        return min(self._seen, self._values.shape[1])

    def add(self, sample: StepSample) -> None:
        self._values[:, self._seen % self._values.shape[1]] = (
            sample.rows + sample.draft_tokens,
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
CARRIED_OVER_AGE_STEPS = 2 * HALF_LIFE_STEPS
"""Samples that were carried over a change of the machine count as that much older."""

MOST_DISAGREEMENT = 1.5
"""Regimes whose steps changed by factors further apart than this have not kept their shape."""

LEAST_NET = 0.1
"""Share of a step that drafting has not taken, whatever it is thought to cost."""

ROWS, CONTEXT, PREFILL, DRAFT, LENGTH, LATENCY, ARRIVAL = range(7)


class KeptSteps(NamedTuple):
    """Samples of a :class:`RegimeBuffer`, columns of shape ``(n,)``."""

    rows: Floats
    context_tokens: Floats
    draft_tokens: Floats
    draft_length: Floats
    whole_s: Floats
    """With what drafting took."""
    weight: Floats


class RegimeBuffer:
    """The last samples of every regime, so that a common one cannot push a rare one out.

    A regime is a triple of powers of two, rows, summed context and draft tokens, a power of four of
    prefill tokens, and a draft length. Each keeps its newest ``depth`` samples; past ``regimes`` of
    them, the one that was seen longest ago is forgotten. Samples lose half their weight every
    ``HALF_LIFE_STEPS``: what was seen long ago still says how batches of another size compare, but
    does not outvote what the machine does now.

    Steps are kept with what drafting took, and given without it, as it is known by then: what it
    was taken to cost when they ran may have been a guess.
    """

    def __init__(self, regimes: int = 128, depth: int = 32) -> None:
        self._values = np.zeros((7, regimes, depth))
        self._counts = np.zeros(regimes, dtype=np.int64)
        self._slots: dict[tuple[int, int, int, int, int], int] = {}  # least recently seen first
        self._depth = depth
        self._drafting = NO_DRAFTING
        self._held = 0
        self._seen = 0

    def __len__(self) -> int:
        return self._held

    def add(self, sample: StepSample) -> None:
        regime = (
            sample.rows.bit_length(),
            sample.context_tokens.bit_length(),
            sample.draft_tokens.bit_length(),
            (sample.prefill_tokens.bit_length() + 1) // 2,
            sample.draft_length,
        )
        slot = self._slots.pop(regime, None)
        if slot is None:
            slot = self._free_slot()
        self._slots[regime] = slot
        count = int(self._counts[slot])
        self._values[:, slot, count % self._depth] = (
            sample.rows,
            sample.context_tokens,
            sample.prefill_tokens,
            sample.draft_tokens,
            sample.draft_length,
            sample.latency_s + sample.drafting_s,
            self._seen,
        )
        self._drafting = sample.drafting
        self._seen += 1
        self._counts[slot] = count + 1
        self._held += count < self._depth

    def columns(self) -> Floats:
        """All samples, shape ``(5, n)``: rows, context, prefill and draft tokens, seconds."""
        used = len(self._slots)
        kept = self._values[:, :used][:, self._present(used)]
        net_s = self._net_s(kept[ROWS], kept[LENGTH], kept[DRAFT], kept[LATENCY])
        return np.stack([kept[ROWS], kept[CONTEXT], kept[PREFILL], kept[DRAFT], net_s])

    def design(self, outlier_factor: float) -> DraftedDesign:
        """What :meth:`kept` gives, without what drafting took."""
        kept = self.kept(outlier_factor)
        net_s = self._net_s(kept.rows, kept.draft_length, kept.draft_tokens, kept.whole_s)
        return kept.rows, kept.context_tokens, kept.draft_tokens, net_s, kept.weight

    def kept(self, outlier_factor: float) -> KeptSteps:
        """All samples but the outliers: those further than ``outlier_factor`` from their regime's
        median, up or down.

        The test is made here and not on arrival, so that a lasting change of speed moves the
        median and is learnt, while a pause of the machine is not.
        """
        used = len(self._slots)
        held = np.minimum(self._counts[:used], self._depth)
        latency = self._values[LATENCY, :used]
        present = self._present(used)
        ordered = np.sort(np.where(present, latency, np.inf), axis=1)
        median = ordered[np.arange(used), (held - 1) // 2]
        high, low = outlier_factor * median[:, None], median[:, None] / outlier_factor
        keep = present & (latency <= high) & (latency >= low)
        kept = self._values[:, :used][:, keep]
        weight = np.maximum(np.exp2((kept[ARRIVAL] - self._seen) / HALF_LIFE_STEPS), LEAST_WEIGHT)
        return KeptSteps(
            kept[ROWS], kept[CONTEXT], kept[DRAFT], kept[LENGTH], kept[LATENCY], weight
        )

    def _net_s(self, rows: Floats, length: Floats, drafts: Floats, whole_s: Floats) -> Floats:
        drafting_s = self._drafting.seconds(length, rows, drafts)
        seconds: Floats = np.maximum(whole_s - drafting_s, LEAST_NET * whole_s)
        return seconds

    def carry_over(self, newer_steps: int, factor: float) -> None:
        """The machine has changed: for the ``newer_steps`` newest samples, steps have taken
        ``factor`` times as long.

        Regimes that were seen since keep only what is newer than the change. The others are carried
        over: their steps are taken to be ``factor`` times as long, too, and count as older. If the
        regimes that were seen on both sides do not agree on one factor, the shape has changed as
        well, and everything older is forgotten.
        """
        used = len(self._slots)
        present = self._present(used)
        new = present & (self._values[ARRIVAL, :used] >= self._seen - newer_steps)
        old = present & ~new
        alike = self._keeps_shape(old, new)
        for slot in np.flatnonzero((old & (new.any(axis=1, keepdims=True) | (not alike))).any(1)):
            self._keep_only(int(slot), new[slot])
        carried = old & ~new.any(axis=1, keepdims=True) & alike
        self._values[LATENCY, :used][carried] *= factor
        self._values[ARRIVAL, :used][carried] -= CARRIED_OVER_AGE_STEPS

    def _keeps_shape(self, old: npt.NDArray[np.bool_], new: npt.NDArray[np.bool_]) -> bool:
        latency = self._values[LATENCY]
        factors = [
            float(np.median(latency[slot, new[slot]]) / np.median(latency[slot, old[slot]]))
            for slot in np.flatnonzero(old.any(axis=1) & (np.count_nonzero(new, axis=1) >= 3))
        ]
        return not factors or max(factors) <= MOST_DISAGREEMENT * min(factors)

    def _keep_only(self, slot: int, kept: npt.NDArray[np.bool_]) -> None:
        values = self._values[:, slot, np.flatnonzero(kept)]
        values = values[:, np.argsort(values[ARRIVAL])]
        self._held -= int(min(self._counts[slot], self._depth)) - values.shape[1]
        self._values[:, slot, : values.shape[1]] = values
        self._counts[slot] = values.shape[1]

    def _present(self, used: int) -> npt.NDArray[np.bool_]:
        held = np.minimum(self._counts[:used], self._depth)
        present: npt.NDArray[np.bool_] = np.arange(self._depth) < held[:, None]
        return present

    def _free_slot(self) -> int:
        if len(self._slots) < len(self._counts):
            return len(self._slots)
        slot = self._slots.pop(next(iter(self._slots)))
        self._held -= min(int(self._counts[slot]), self._depth)
        self._counts[slot] = 0
        return slot
