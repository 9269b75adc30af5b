"""From a mean to a 90th percentile: how far measured steps lie above it, by regime.

Cross-conformal prediction: the ratio of measured to predicted time is taken by fits that had not
seen the step, and its 90th percentile, with the correction for a finite sample, covers
new steps of the same kind with that probability, whatever the noise is like.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from controller_service.learning.samples import Samples
from controller_service.predictors.base import P90, Floats
from controller_service.predictors.table import CompiledTable, monotone

LEAST_STEPS = 80
"""Fewer held-out steps in a regime leave it to all regimes together."""
OCTAVES = 2
"""Powers of two that one group spans, along rows and along context."""
_GROUPS = 32


class Spread(msgspec.Struct, frozen=True, eq=False):
    """Ratio of the 90th percentile to the mean."""

    overall: float
    groups: Floats
    """By group of rows and of context, shape ``(32, 32)``; 0 where too little is known."""
    surcharge: float
    """Of what prefill or draft tokens add."""

    def at(self, rows: Floats, context: Floats) -> Floats:
        """The ratio for steps of this shape; any common shape."""
        known = self.groups[_group(rows), _group(context)]
        return np.where(known > 0, known, self.overall)


class Predicted(msgspec.Struct, frozen=True, eq=False):
    """Steps, and what was predicted for each by a fit that had not seen it."""

    samples: Samples
    decode_s: Floats
    """Mean without prefill and draft tokens, shape ``(n,)``."""
    step_s: Floats
    """Mean of the whole step."""

    def decode_only(self) -> npt.NDArray[np.intp]:
        """Indices of the steps without prefill and draft tokens."""
        extra = self.samples.prefill_tokens + self.samples.draft_tokens
        return np.flatnonzero(extra == 0)

    @classmethod
    def join(cls, parts: Sequence[Predicted]) -> Predicted:
        return cls(
            Samples.join([part.samples for part in parts]),
            np.concatenate([part.decode_s for part in parts]),
            np.concatenate([part.step_s for part in parts]),
        )


def predicted(samples: Samples, table: CompiledTable) -> Predicted:
    """What ``table`` says of ``samples``."""
    shape = (samples.rows, samples.context_tokens)
    step_s = table.predict(*shape, samples.prefill_tokens, samples.draft_tokens)
    return Predicted(samples, table.predict(*shape), step_s)


def measure_spread(unseen: Predicted) -> Spread:
    """
    Args:
        unseen: at least one step of decode alone.
    """
    plain = unseen.decode_only()
    samples = unseen.samples.take(plain)
    ratio = samples.latency_s / unseen.decode_s[plain]
    overall = conformal(ratio)
    groups = np.zeros((_GROUPS, _GROUPS))
    place = _group(samples.rows) * _GROUPS + _group(samples.context_tokens)
    for one in np.unique(place):
        inside = ratio[place == one]
        if len(inside) >= LEAST_STEPS:
            groups[one // _GROUPS, one % _GROUPS] = conformal(inside)
    return Spread(overall, groups, _surcharge_ratio(unseen, overall))


def _surcharge_ratio(unseen: Predicted, overall: float) -> float:
    """So that mean decode, its spread, and this much of the surcharge cover nine in ten."""
    added = unseen.step_s - unseen.decode_s
    dear = added > 1e-6 * unseen.decode_s
    if int(dear.sum()) < LEAST_STEPS:
        return overall
    beyond = unseen.samples.latency_s[dear] - overall * unseen.decode_s[dear]
    return conformal(beyond / added[dear])


def conformal(ratio: Floats) -> float:
    """The 90th percentile of ``ratio``, such that a further one is below it with that probability;
    at least a tenth, so that what is multiplied by it stays a duration."""
    rank = math.ceil((len(ratio) + 1) * P90)
    found = float(np.sort(ratio)[min(rank, len(ratio)) - 1])
    return max(found, 0.1)


def spread_table(mean: CompiledTable, ratio: Floats, surcharge: float) -> CompiledTable:
    """The table of the 90th percentile; falls nowhere.

    Args:
        ratio: to the mean, in the shape of ``mean.latency_s``, above 0.
        surcharge: the same for what prefill and draft tokens add.
    """
    p90 = monotone(mean.latency_s * ratio, np.zeros_like(mean.latency_s))
    last = float(ratio[-1, -1])
    row_s, token_s = mean.slopes
    return CompiledTable(
        mean.context,
        p90,
        (row_s * last, token_s * last),
        mean.prefill.scaled(surcharge),
        mean.draft.scaled(surcharge),
    )


def table_mesh(table: CompiledTable) -> tuple[Floats, Floats]:
    """Rows and context of every point of a table, each in the shape of ``latency_s``."""
    rows, context = np.meshgrid(
        np.arange(len(table.latency_s), dtype=np.float64), table.context, indexing="ij"
    )
    return rows, context


def _group(values: Floats) -> npt.NDArray[np.intp]:
    octave = np.log2(np.maximum(values, 1.0)) / OCTAVES
    group: npt.NDArray[np.intp] = np.minimum(octave.astype(np.intp), _GROUPS - 1)
    return group
