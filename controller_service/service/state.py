"""What a policy is given to decide who is served before whom."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import numpy.typing as npt

from controller_service.predictors.base import Floats

Ints = npt.NDArray[np.int64]


class Service(msgspec.Struct, frozen=True, eq=False):
    """Of some requests: one entry each."""

    attained_s: Floats
    """Time that it has spent in the batch, over all its turns."""
    waited_s: Floats
    """Time that it has spent outside, since it came."""
    remaining_tokens: Floats
    """Tokens that it is expected to write still, at least 1."""
    tokens_per_round: Floats
    """What a round gives it: one token, and the draft tokens that are accepted (``n A + 1``)."""
    spread: Floats
    """The least that its acceptance has varied over one window of rounds; infinite before it has
    had so many, 0 without speculation."""
    retractions: Ints
    """How often it has lost its memory already."""
    tokens_at: Callable[[float], Floats]
    """Quantiles of the tokens that it will write still: such that this share of requests like it
    has no more. Worked out when asked for."""

    def take(self, which: npt.NDArray[np.intp]) -> Service:
        """Those at the indices ``which``."""
        return Service(
            self.attained_s[which],
            self.waited_s[which],
            self.remaining_tokens[which],
            self.tokens_per_round[which],
            self.spread[which],
            self.retractions[which],
            lambda quantile: self.tokens_at(quantile)[which],
        )


class ServiceState(msgspec.Struct, frozen=True, eq=False):
    """Of everybody that a snapshot tells of."""

    most_rows: int
    """Places in the batch."""
    can_retract: bool
    """Whether the engine can be told whose memory to free."""
    queue: Service
    """Of who waits, in the order of the queue's columns."""
    rows: Service
    """Of the rows, in the order of theirs."""
    round_s: float = 0.0
    """What a row has waited for a round of late, prefills of others in between included; 0: it is
    not known yet."""
