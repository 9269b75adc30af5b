"""Bounds on everything that can arrive on a Governor socket.

A peer that exceeds one of these is broken or hostile; its frame is refused whole.
"""

from __future__ import annotations

MAX_FRAME_BYTES = 1 << 20
"""Largest frame either side reads. A full snapshot of 4,096 rows takes about 250 kB."""

MAX_ROWS = 4096
"""Rows in one snapshot, and ids in one decision."""

MAX_QUEUED = 1024
"""Waiting requests in one snapshot, and ids in the order of one decision."""

MAX_FEEDBACK = 64
"""Finished steps reported by one snapshot."""

MAX_ENDED = 256
"""Rows that have left, reported by one snapshot."""

MAX_GRAPHS = 512
"""Batch sizes with captured graphs."""

MAX_DRAFT_LENGTHS = 64
"""Draft lengths that an engine may be set up for."""

MAX_DRAFT_TOKENS = 255
"""Draft tokens of one row at one step: a cap on them fills an unsigned byte."""

MAX_DRAFT_PRICE = 1e6
"""What one draft token may cost, over the rest of a row's share of a step."""

MAX_BANDS = 16
"""Batch-size bands in a table of standing orders."""

MAX_LEASE_STEPS = 64
"""Steps for which one decision's standing orders may hold."""

MAX_TEXT = 256
"""Characters in a name or version."""

MAX_MESSAGE = 2048
"""Characters in a human-readable message."""

MAX_STEP = (1 << 53) - 1
"""Largest step number: the largest integer that JSON tools represent exactly."""

MAX_DURATION_S = 1e7
"""Largest duration in seconds (116 days); also the value that stands for 'no target'."""

MAX_NUMBER = (1 << 32) - 1
"""Largest number of a request or a group: it fills an unsigned 32-bit column."""

MAX_COUNT = (1 << 31) - 1
"""Largest count of tokens or rows: every count fits a signed 32-bit column."""
