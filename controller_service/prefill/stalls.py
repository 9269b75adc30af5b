"""How long those who decode can be kept waiting: a chunk is an externality, as a branch is."""

from __future__ import annotations

import msgspec
import numpy as np
from governor_protos.limits import MAX_DURATION_S

from controller_service.paces import LOST_S, requests_of, spare_s
from controller_service.predictors.base import Floats
from controller_service.state import StepState

LEAST_REMAINING = 32.0
"""A request is expected to go on for at least so many tokens."""


class Stalls(msgspec.Struct, frozen=True, eq=False):
    """The requests with a TPOT target that they can keep, and what each of them can spare."""

    spare_s: Floats
    """Seconds that each can be stalled for and still keep its promise, ascending."""

    @classmethod
    def of(cls, state: StepState, decode_s: float, margin: float) -> Stalls:
        """
        Args:
            decode_s: predicted step of decode.
            margin: share of each target that is kept back.
        """
        requests = requests_of(state, np.zeros(0, dtype=np.intp))
        remaining = np.maximum(requests.tokens, LEAST_REMAINING)
        spare = spare_s(requests, margin, remaining, decode_s)
        return cls(np.sort(spare[(spare > LOST_S) & (spare <= MAX_DURATION_S)]))

    @property
    def least_s(self) -> float:
        """What everybody can spare."""
        return float(self.spare_s[0]) if self.spare_s.size else MAX_DURATION_S

    def hurt(self, stall_s: Floats) -> Floats:
        """How many could not keep their promise after such a stall, shape of ``stall_s``."""
        counts: Floats = self.spare_s.searchsorted(stall_s, side="left").astype(np.float64)
        return counts
