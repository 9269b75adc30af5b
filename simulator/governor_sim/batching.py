"""SGLang's batching rules (0.5.17): who prefills, in what chunks, who is retracted.

Waiting requests go first, in order of arrival, while the KV memory that the running rows are
expected to need leaves room for them; otherwise the running rows decode. Times and policies are not
here.
"""

from __future__ import annotations

from collections import deque

import msgspec

from governor_sim.kv import KvMemory
from governor_sim.rows import SimRow

CLIP_MAX_NEW_TOKENS = 4096
FIRST_RATIO = 0.7
LEAST_RATIO = 0.7 * 0.14
RATIO_STEP = (FIRST_RATIO - LEAST_RATIO) / 600
RETRACT_STEPS = 20


class EngineLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Start-up settings of the engine, under SGLang's names."""

    max_running_requests: int = 512
    chunked_prefill_size: int = 8192
    max_prefill_tokens: int = 16384


class PrefillBatch(msgspec.Struct, frozen=True):
    """Rows that prefill together, and how many tokens each brings in."""

    rows: list[SimRow]
    tokens: list[int]

    @property
    def prefill_tokens(self) -> int:
        return sum(self.tokens)

    @property
    def costly_tokens(self) -> int:
        """Without the one token of each prompt that was cached: to the device, that is a row."""
        return sum(tokens for tokens in self.tokens if tokens > 1)


class Batcher:
    """The scheduler's queues and rules."""

    def __init__(self, limits: EngineLimits, kv: KvMemory) -> None:
        self.limits = limits
        self.kv = kv
        self.waiting: deque[SimRow] = deque()
        self.running: list[SimRow] = []
        self.chunked: SimRow | None = None
        """The row in the middle of a chunked prefill."""
        self.retractions = 0
        self._ratio = FIRST_RATIO
        self._is_full = False

    @property
    def idle(self) -> bool:
        return not self.running and not self.waiting and self.chunked is None

    def reset(self) -> None:
        """The engine ran dry."""
        self._ratio = FIRST_RATIO
        self._is_full = False

    def drop_finished(self) -> None:
        """Take rows whose results said that they are done out of the running batch."""
        before = len(self.running)
        self.running = [row for row in self.running if not row.finished]
        if len(self.running) < before:
            self._is_full = False

    def next_prefill(self) -> PrefillBatch | None:
        """Rows to prefill now, already holding their memory; None to decode instead."""
        if (self._is_full or not self.waiting) and self.chunked is None:
            return None
        batch = PrefillBatch([], [])
        room = _Room(self)
        if self.chunked is not None:
            self._continue_chunk(self.chunked, batch, room)
        while self.waiting and room.open:
            if len(self.running) + len(batch.rows) >= self.limits.max_running_requests:
                self._is_full = True
                break
            if not self._admit(self.waiting[0], batch, room):
                break
            if room.promised_tokens >= self.kv.reachable_tokens:
                self._is_full = True
                break
        return batch if batch.rows else None

    def make_room(self) -> None:
        """Before a decode step: retract rows until one more token for each fits."""
        if len(self.running) <= self.kv.reachable_tokens:
            self.relax()
            return
        order = sorted(
            self.running, key=lambda row: (row.output_tokens, -row.prompt_tokens), reverse=True
        )
        while len(order) > 1:
            row = order.pop()
            self.kv.release(row)
            row.retracted = True
            self.retractions += 1
            self.waiting.append(row)
            if len(order) <= self.kv.reachable_tokens:
                break
        kept = set(map(id, order))
        self.running = [row for row in self.running if id(row) in kept]
        self._is_full = False
        decoded = sum(row.output_tokens for row in self.running)
        wanted = sum(row.max_new_tokens for row in self.running)
        self._ratio = min(1.0, (decoded + RETRACT_STEPS * len(self.running)) / (wanted + 1))

    def relax(self) -> None:
        """A decode step fitted: expect a little less growth from here on."""
        self._ratio = max(self._ratio - RATIO_STEP, LEAST_RATIO)

    def expected_growth(self) -> float:
        """Tokens that the running rows are expected to need still."""
        ratio = self._ratio
        return ratio * sum([_growth(row) for row in self.running])

    def _continue_chunk(self, row: SimRow, batch: PrefillBatch, room: _Room) -> None:
        free = int(self.kv.reachable_tokens - room.promised_tokens)
        # Left out of the batch, it would keep what it holds for good.
        most = min(room.chunk_tokens, free) if free > 0 else room.chunk_tokens
        tokens = min(row.length - row.prefilled_tokens, most)
        if row.prefilled_tokens + tokens >= row.length:
            self.chunked = None
        self._add(row, tokens, batch, room)

    def _admit(self, row: SimRow, batch: PrefillBatch, room: _Room) -> bool:
        _, hit = self.kv.match(row)
        missing = row.length - hit
        growth = _growth(row)
        if missing + growth + 1 >= self.kv.reachable_tokens - room.promised_tokens:
            self._is_full = True
            return False
        self.kv.admit(row)
        if missing + growth + 1 >= self.kv.reachable_tokens - room.promised_tokens:
            # Locking its own prefix took what it would have needed.
            self.kv.release(row)
            self._is_full = True
            return False
        self.waiting.popleft()
        row.retracted = False
        tokens = min(missing, room.chunk_tokens)
        if tokens < missing:
            self.chunked = row
        self._add(row, tokens, batch, room)
        return True

    def _add(self, row: SimRow, tokens: int, batch: PrefillBatch, room: _Room) -> None:
        self.kv.take(row, tokens)
        row.prefilled_tokens += tokens
        row.context_tokens = row.prefilled_tokens
        batch.rows.append(row)
        batch.tokens.append(tokens)
        room.chunk_tokens -= tokens
        room.input_tokens -= tokens
        room.promised_tokens += 1 if row is self.chunked else 1 + _growth(row)


class _Room:
    """What one prefill batch may still take."""

    def __init__(self, batcher: Batcher) -> None:
        limits = batcher.limits
        self.chunk_tokens = limits.chunked_prefill_size
        self.input_tokens = limits.max_prefill_tokens
        self.promised_tokens = batcher.expected_growth()

    @property
    def open(self) -> bool:
        return self.chunk_tokens > 0 and self.input_tokens > 0


def _growth(row: SimRow) -> int:
    """Tokens that admission expects a row to produce still."""
    return max(0, min(row.max_new_tokens - row.output_tokens, CLIP_MAX_NEW_TOKENS))
