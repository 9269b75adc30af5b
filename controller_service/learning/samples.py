"""Measured steps as columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from controller_service.predictors.base import LEAST_LATENCY_S, Floats, StepSample

COLUMNS = ("rows", "context_tokens", "prefill_tokens", "draft_tokens", "latency_s")


class Samples(msgspec.Struct, frozen=True, eq=False):
    """Steps that were measured. Every column has shape ``(n,)``, float64."""

    rows: Floats
    """Rows that advanced."""
    context_tokens: Floats
    """KV tokens that they attended to, summed."""
    prefill_tokens: Floats
    draft_tokens: Floats
    """Draft tokens verified beyond one token a row, summed."""
    latency_s: Floats

    def __len__(self) -> int:
        return len(self.latency_s)

    def take(self, which: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Samples:
        """The samples at these indices, or where this mask is true."""
        return Samples(*(getattr(self, name)[which] for name in COLUMNS))

    def usable(self) -> Samples:
        """Without those that teach nothing: no work, no time, or not a number."""
        columns = np.array([getattr(self, name) for name in COLUMNS])
        sound = np.isfinite(columns).all(axis=0) & (columns >= 0).all(axis=0)
        sound &= (self.latency_s >= LEAST_LATENCY_S) & (self.rows + self.prefill_tokens > 0)
        return self.take(sound)

    @classmethod
    def of(cls, samples: Iterable[StepSample]) -> Samples:
        """From single samples."""
        listed = list(samples)
        return cls(
            *(
                np.array([getattr(one, name) for one in listed], dtype=np.float64)
                for name in COLUMNS
            )
        )

    @classmethod
    def join(cls, parts: Sequence[Samples]) -> Samples:
        """One after the other; empty for no parts."""
        return cls(
            *(
                np.concatenate([np.zeros(0), *(getattr(part, name) for part in parts)])
                for name in COLUMNS
            )
        )
