"""Snapshots that are built beforehand: sending one only writes two numbers into it."""

from __future__ import annotations

import struct

from governor_protos import encode

from governor_bench.made_up import snapshot_of

FIRST_STEP = (1 << 16) + 1
"""From the step before it on, msgpack writes every number of a step as a marker and four bytes."""
_NUMBER = struct.Struct(">BI")
_MARKER = 0xCE


class StepFrames:
    """Frames of a batch that changes from step to step, and starts over now and then.

    Args:
        rows: rows of every batch; half of them belong to requests of eight branches.
        variants: different batches.
    """

    def __init__(self, rows: int, variants: int) -> None:
        self._templates = [_Template(FIRST_STEP + number, rows) for number in range(variants)]

    def frame(self, step: int, offset: int) -> bytearray:
        """The snapshot that asks about ``step``, at least ``FIRST_STEP``, and reports the one
        before it. Good until the next call.

        Args:
            offset: sets engines apart that are at the same step.
        """
        return self._templates[(step + offset) % len(self._templates)].of(step)


class _Template:
    """One frame, and where it says its step and the step of its feedback."""

    def __init__(self, step: int, rows: int) -> None:
        self._data = bytearray(encode(snapshot_of(step, rows)))
        self._step_at = self._data.index(_NUMBER.pack(_MARKER, step))
        # The columns lie between the two, and may hold any bytes.
        self._feedback_at = self._data.rindex(_NUMBER.pack(_MARKER, step - 1))

    def of(self, step: int) -> bytearray:
        _NUMBER.pack_into(self._data, self._step_at, _MARKER, step)
        _NUMBER.pack_into(self._data, self._feedback_at, _MARKER, step - 1)
        return self._data
