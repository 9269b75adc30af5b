"""Rows that have left the engine, until the controller has been told."""

from __future__ import annotations

from collections import deque
from itertools import islice

from governor_protos.limits import MAX_COUNT, MAX_DURATION_S, MAX_ENDED
from governor_protos.messages import EndReason, RequestEnd

from sglang_patch.rows import RowRecord

MAX_BACKLOG = 4096
"""Ends that wait for a controller; beyond it the oldest are dropped and counted."""


class EndLog:
    """A bounded queue of ends, oldest first. An end stays in it until it has been sent."""

    def __init__(self) -> None:
        self._waiting: deque[RequestEnd] = deque()
        self.dropped = 0
        """Ends that no controller was told of."""

    def __len__(self) -> int:
        return len(self._waiting)

    def add(
        self,
        record: RowRecord,
        reason: EndReason,
        now_s: float,
        *,
        output_tokens: int,
        draft_tokens: int = 0,
        accepted_tokens: int = 0,
    ) -> None:
        """Note that a row is done; a second time, or if it was to say nothing, does nothing.

        The prefill that SGLang sends ahead of ``n > 1`` samples generates nothing and is nobody's
        request.
        """
        if record.ended or record.max_new_tokens <= 0:
            return
        record.ended = True
        if len(self._waiting) >= MAX_BACKLOG:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(
            RequestEnd(
                request_id=record.request_id,
                group_id=record.group_id,
                prompt_tokens=min(record.prompt_tokens, MAX_COUNT),
                output_tokens=min(output_tokens, MAX_COUNT),
                max_new_tokens=min(record.max_new_tokens, MAX_COUNT),
                reason=reason.value,
                age_s=min(max(now_s - record.arrival_s, 0.0), MAX_DURATION_S),
                draft_tokens=min(draft_tokens, MAX_COUNT),
                accepted_tokens=min(accepted_tokens, MAX_COUNT),
                expected_tokens=record.expected_tokens,
            )
        )

    def oldest(self) -> list[RequestEnd]:
        """As many as fit one snapshot."""
        return list(islice(self._waiting, MAX_ENDED)) if self._waiting else []

    def forget(self, count: int) -> None:
        """The ``count`` oldest have been sent."""
        for _ in range(count):
            self._waiting.popleft()
