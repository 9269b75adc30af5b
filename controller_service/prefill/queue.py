"""The requests that wait for their prefill, as numpy columns."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from governor_protos.columns import APPENDED_COLUMNS, QUEUE_COLUMNS
from governor_protos.messages import Hello, Queue, QueueFlag
from msgspec.structs import astuple

from controller_service.columns import F4, I4, U1, U4, BadColumn, Mask, dtypes

KNOB = "prefill"
"""What an engine calls the actuator."""

_DTYPES = dtypes(QUEUE_COLUMNS)
_STARTED = int(QueueFlag.STARTED)


class PrefillState(msgspec.Struct, frozen=True, eq=False):
    """What can be prefilled. Every column has shape ``(waiting,)``, in the engine's own order."""

    waiting: int
    most_tokens: int
    """Prompt tokens that one step can prefill at most."""
    page_size: int
    """A prompt that is cut is cut after a multiple of this many tokens."""
    mixes_chunks: bool
    """Whether decode rows advance in a step that prefills."""
    in_a_row: int
    """Steps in a row, up to the one before this, that were told to prefill."""
    ahead_s: float
    """Time until the step begins: what the one before it takes, where steps are planned ahead."""
    leeway: float
    """Share of the time that TTFT targets leave that has gone well of late, 0 to 1."""
    request_id: U4
    group_id: U4
    flags: U1
    missing_tokens: I4
    """What the prefix cache holds is done; at least 1."""
    prompt_tokens: I4
    output_tokens: I4
    max_new_tokens: I4
    priority: I4
    age_s: F4
    ttft_slo_s: F4
    tpot_slo_s: F4
    draft_tokens: I4
    """Verified for a request that has run before; 0 from an engine that does not tell."""
    accepted_tokens: I4
    expected_tokens: I4
    """Output that its client expects; 0: it said nothing."""

    @property
    def started_mask(self) -> Mask:
        """The request in the middle of its prefill, if there is one."""
        mask: Mask = (self.flags & _STARTED) != 0
        return mask

    @property
    def started(self) -> int:
        """Its index; -1 without one."""
        found = np.flatnonzero(self.started_mask)
        return int(found[0]) if found.size else -1

    @classmethod
    def from_queue(
        cls,
        queue: Queue,
        hello: Hello,
        in_a_row: int = 0,
        ahead_s: float = 0.0,
        leeway: float = 1.0,
    ) -> PrefillState:
        """View ``queue`` as columns.

        Args:
            hello: of an engine with the knob.
            in_a_row, ahead_s, leeway: see the fields.

        Raises:
            BadColumn: a request misses a negative number of tokens.
        """
        columns: list[Any] = list(map(np.frombuffer, astuple(queue), _DTYPES))
        for position in _APPENDED:
            if len(columns[position]) != len(queue):
                columns[position] = np.zeros(len(queue), dtype=np.int32)
        missing = columns[_MISSING]
        if missing.size and np.minimum.reduce(missing) < 0:
            raise BadColumn("queue.missing_tokens: negative; a prefill computes at least 0 tokens")
        return cls(
            len(queue),
            hello.chunked_prefill_tokens,
            max(1, hello.page_size),
            hello.mixes_chunks,
            in_a_row,
            ahead_s,
            leeway,
            *columns,
        )


_APPENDED = tuple(
    position for position, name in enumerate(QUEUE_COLUMNS) if name in APPENDED_COLUMNS
)
_MISSING = tuple(QUEUE_COLUMNS).index("missing_tokens")

if Queue.__struct_fields__ != tuple(QUEUE_COLUMNS) or tuple(QUEUE_COLUMNS) != tuple(
    PrefillState.__struct_fields__[-len(QUEUE_COLUMNS) :]
):
    raise ImportError("PrefillState's columns and governor_protos' columns have come apart")
