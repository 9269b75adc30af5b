"""How much one peer may send, so that one that floods the socket costs the others little.

What is over a limit is dropped before it is decoded. To an engine that is a snapshot without an
answer: it falls back, and its circuit breaker makes it ask less.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from controller_service.throttle import Throttle

Limit = Literal["frames", "bytes"]

STRANGERS_PER_ENGINE = 4
"""Peers followed at once, for each engine that may be served."""


class PeerLimits:
    """A budget of frames and one of bytes for each socket identity, both refilled every second.

    Args:
        most_peers: identities followed; beyond them, those unheard for longest are forgotten, whose
            budgets have had most time to refill.
    """

    def __init__(self, frames_per_s: float, bytes_per_s: float, most_peers: int) -> None:
        self._frames_per_s = frames_per_s
        self._bytes_per_s = bytes_per_s
        self._most_peers = most_peers
        self._peers: OrderedDict[bytes, tuple[Throttle, Throttle]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._peers)

    def exceeded(self, identity: bytes, size_bytes: int, now_s: float) -> Limit | None:
        """The limit that a message breaks, if any. One that breaks none is counted."""
        peer = self._peers.get(identity)
        if peer is None:
            peer = (Throttle(self._frames_per_s), Throttle(self._bytes_per_s))
            self._peers[identity] = peer
            if len(self._peers) > self._most_peers:
                self._peers.popitem(last=False)
        else:
            self._peers.move_to_end(identity)
        frames, size = peer
        if not frames.allows(now_s):
            return "frames"
        return None if size.allows(now_s, size_bytes) else "bytes"
