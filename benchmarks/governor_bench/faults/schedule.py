"""How often each fault comes. Only chances and ranges; the draws are the stages' own."""

from __future__ import annotations

from governor_bench.faults.kinds import Kind

FRAME_KINDS = tuple(kind for kind in Kind if kind.value.startswith("frame_"))

LIGHT = dict.fromkeys(FRAME_KINDS, 0.03)
"""Most frames pass: decisions are applied between the faults."""
HEAVY = dict.fromkeys(FRAME_KINDS, 0.1)
"""Most do not: the circuit breaker opens and closes."""
LYING = {Kind.FRAME_LIE: 0.8}
LOSSY = {Kind.FRAME_DROP: 0.5, Kind.FRAME_DELAY: 0.3}
OLD_NEWS = {Kind.FRAME_REPLAY: 0.4, Kind.FRAME_DUPLICATE: 0.3, Kind.FRAME_REORDER: 0.2}
TORN = {Kind.FRAME_TRUNCATE: 0.3, Kind.FRAME_FLIP: 0.6}

MIXES = {
    "light": LIGHT,
    "heavy": HEAVY,
    "lying": LYING,
    "lossy": LOSSY,
    "old news": OLD_NEWS,
    "torn": TORN,
}
QUICK_MIXES = ("heavy", "lying")

STOP_S = (0.05, 1.2)
"""A stopped controller."""
STALL_S = (0.005, 0.06)
"""A slow one: stopped for so long ..."""
RUN_S = (0.005, 0.03)
"""... after it ran for so long."""
APART_S = (0.1, 0.6)
"""Between two faults that are done to a process."""
JUMPS_S = (-86_400.0, -3600.0, -1.0, 1.0, 3600.0, 86_400.0, 1e8)
"""Where a wall clock jumps to; the last is three years ahead."""
