"""What becomes of one frame on its way. All draws come from one seeded generator a direction."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from random import Random
from typing import NamedTuple

from governor_bench.faults.kinds import Kind

Forge = Callable[[bytes, Random], bytes | None]
"""Makes a well-formed lie of a frame; None where it can make none of it."""

REMEMBERED = 64
LEAST_AGE = 8
"""Frames between a frame and its replay, so that what it says is old."""
DELAY_S = (0.001, 0.08)
REORDER_WITHIN_S = 0.25
MOST_COPIES = 4
MOST_FLIPS = 16
HANDSHAKE_SHARE = 0.2
"""Of the chances, for frames that are about no step: a torn greeting may get an engine refused, and
a refused one asks again after ten seconds only."""
ABOUT_STEPS = (b"snapshot", b"decision")
"""Tags, which stand in the first bytes of a frame."""


class Outgoing(NamedTuple):
    """A frame that leaves."""

    after_s: float
    frame: bytes
    kind: Kind | None
    """The fault that it is, once it has been sent; None: it is as it was, or a further copy."""


class Tampering:
    """One direction of the wire.

    Args:
        mix: chance of each kind for a frame; what is left of 1 passes unharmed.
        forge: makes lies.
        rng: where every draw comes from.
    """

    def __init__(self, mix: Mapping[Kind, float], forge: Forge, rng: Random) -> None:
        self._kinds, self._weights = list(mix), list(mix.values())
        self._forge = forge
        self._rng = rng
        self._past: deque[bytes] = deque(maxlen=REMEMBERED)
        self._held: bytes | None = None

    def treat(self, frame: bytes) -> tuple[list[Outgoing], Kind | None]:
        """What is sent in place of ``frame``, and the fault that is done with that alone."""
        kind = self._draw(frame)
        out, done = self._apply(kind, frame)
        self._past.append(frame)
        held, self._held = self._held, None
        if kind is Kind.FRAME_REORDER and held is None:
            self._held = frame
            return [], None
        if held is not None:  # whatever came of this one, the one before goes after it
            passed = bool(out) and not out[0].after_s
            out.append(Outgoing(0.0, held, Kind.FRAME_REORDER if passed else None))
        return out, done

    def give_up_held(self) -> bytes | None:
        """The frame that waits for one to pass it; nothing came, so it goes as it was."""
        held, self._held = self._held, None
        return held

    def _draw(self, frame: bytes) -> Kind | None:
        at = self._rng.random()
        if not any(tag in frame[:16] for tag in ABOUT_STEPS):
            at /= HANDSHAKE_SHARE
        for kind, weight in zip(self._kinds, self._weights, strict=True):
            if at < weight:
                return kind
            at -= weight
        return None

    def _apply(self, kind: Kind | None, frame: bytes) -> tuple[list[Outgoing], Kind | None]:
        rng = self._rng
        unharmed = [Outgoing(0.0, frame, None)]
        if kind is Kind.FRAME_DROP:
            return [], kind
        if kind is Kind.FRAME_DELAY:
            return [Outgoing(rng.uniform(*DELAY_S), frame, kind)], None
        if kind is Kind.FRAME_DUPLICATE:
            copies = rng.randrange(1, MOST_COPIES)
            return unharmed + [
                Outgoing(rng.choice((0.0, 0.01)), frame, kind if number == 0 else None)
                for number in range(copies)
            ], None
        changed = self._changed(kind, frame)
        if changed is None or changed == frame:
            return unharmed, None
        return [Outgoing(0.0, changed, kind)], None

    def _changed(self, kind: Kind | None, frame: bytes) -> bytes | None:
        rng = self._rng
        if kind is Kind.FRAME_TRUNCATE:
            return frame[: rng.randrange(len(frame))] if frame else None
        if kind is Kind.FRAME_FLIP:
            return flipped(frame, rng)
        if kind is Kind.FRAME_LIE:
            return self._forge(frame, rng)
        if kind is Kind.FRAME_REPLAY and len(self._past) > LEAST_AGE:
            return self._past[rng.randrange(len(self._past) - LEAST_AGE)]
        return None


def flipped(frame: bytes, rng: Random) -> bytes:
    """``frame`` with some bits turned over."""
    torn = bytearray(frame)
    for _ in range(rng.randrange(1, MOST_FLIPS + 1)):
        if torn:
            torn[rng.randrange(len(torn))] ^= 1 << rng.randrange(8)
    return bytes(torn)
