"""SGLang's batching rules (0.5.17): who prefills, in what chunks, who is retracted.

Waiting requests go first, in order of arrival, while the KV memory that the running rows are
expected to need leaves room for them; otherwise the running rows decode, or beside them if chunks
are mixed. A :class:`PrefillOrder` says how much and whose prompts first. Times and policies are not
here.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection, Iterable

import msgspec

from governor_sim.kv import KvMemory
from governor_sim.rows import UNKNOWN, SimRow
from sglang_patch.apply.prefill import OWN_CHOICE, STOCK, PrefillOrder, budget_of

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
    mixed_chunk: bool = False
    """Whether the running rows decode in a step that prefills."""


class PrefillBatch(msgspec.Struct, frozen=True):
    """Rows that prefill together, and how many tokens each brings in."""

    rows: list[SimRow]
    tokens: list[int]
    decoding: list[SimRow]
    """Rows that decode in the same step: with mixed chunks, all that run."""

    @property
    def prefill_tokens(self) -> int:
        return sum(self.tokens)

    @property
    def costly_tokens(self) -> int:
        """Without the one token of each prompt that was cached: to the device, that is a row."""
        return sum(tokens for tokens in self.tokens if tokens > 1)


class Batcher:
    """The scheduler's queues and rules.

    Args:
        limit_tokens: output limit that every request names, if it is above what it will say, and
            that admission goes by.
    """

    def __init__(self, limits: EngineLimits, kv: KvMemory, limit_tokens: int = 0) -> None:
        self.limits = limits
        self.kv = kv
        self._limit_tokens = limit_tokens
        self.waiting: deque[SimRow] = deque()
        self.running: list[SimRow] = []
        self.chunked: SimRow | None = None
        """The row in the middle of a chunked prefill."""
        self.retractions = 0
        """Rows that lost their memory because it was short."""
        self.preemptions = 0
        """Rows that lost it because somebody said so."""
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

    @property
    def reserved_tokens(self) -> int:
        """What the chunk in flight still needs. Were it taken, neither the chunk nor those that
        took it could go on."""
        chunk = self.chunked
        return 0 if chunk is None else chunk.length - chunk.prefilled_tokens

    def next_prefill(self, order: PrefillOrder = STOCK) -> PrefillBatch | None:
        """Rows to prefill now, already holding their memory; None to decode instead.

        Running rows that decode in the same step are in the batch, no longer in ``running``.
        """
        if self.chunked is not None:
            # SGLang forgets that it is full as it takes the chunk out of the batch.
            self._is_full = False
        elif self._is_full or not self.waiting:
            return None
        chunk_tokens = self._chunk_tokens(order.tokens)
        if not chunk_tokens:
            return None
        batch = PrefillBatch([], [], [])
        if self.chunked is not None:
            self._pass_chunk(order.first, batch, chunk_tokens)
        if not batch.rows:
            self._fill(order.first, batch, chunk_tokens)
        if not batch.rows:
            return None
        if self.limits.mixed_chunk and self.running:
            self._mix(batch)
        return batch

    def make_room(self) -> None:
        """Before a decode step: retract rows until one more token for each fits."""
        if len(self.running) <= self.kv.reachable_tokens:
            self.relax()
            return
        self._retract(keep=1, spare_tokens=0)

    def _retract(self, keep: int, spare_tokens: int) -> None:
        """Take memory from those with the least output, until one token for each row and
        ``spare_tokens`` fit or ``keep`` rows are left."""
        order = sorted(
            self.running, key=lambda row: (row.output_tokens, -row.prompt_tokens), reverse=True
        )
        while len(order) > keep:
            row = order.pop()
            self.kv.release(row)  # without its output, as the room is needed at once
            self._send_back(row)
            self.retractions += 1
            if len(order) + spare_tokens <= self.kv.reachable_tokens:
                break
        kept = set(map(id, order))
        self.running = [row for row in self.running if id(row) in kept]
        self._is_full = False
        decoded = sum(row.output_tokens for row in self.running)
        wanted = sum(max(row.max_new_tokens, self._limit_tokens) for row in self.running)
        self._ratio = min(1.0, (decoded + RETRACT_STEPS * len(self.running)) / (wanted + 1))

    def preempt(self, rids: Iterable[str], under_way: Collection[SimRow] = ()) -> list[SimRow]:
        """Before a decode step: send running rows back to the queue because somebody said so.

        Their memory counts as free, and as long as nobody has taken it they come back for one token
        of prefill. What a step that is still running computes for them is dropped.

        Args:
            under_way: rows whose prefill is not known to be done. They stay, as do those at their
                last token, those that would not be let in again, and one row at least.

        Returns:
            The rows that have gone.
        """
        named = frozenset(rids)
        kept = set(map(id, under_way))
        going = [
            row
            for row in self.running
            if row.rid in named and id(row) not in kept and self._may_go(row)
        ]
        if len(going) == len(self.running):
            going = going[:-1]
        if not going:
            return []
        for row in going:
            self.kv.set_aside(row)
            self._send_back(row)
        self.preemptions += len(going)
        gone = set(map(id, going))
        self.running = [row for row in self.running if id(row) not in gone]
        self._is_full = False
        return going

    def _may_go(self, row: SimRow) -> bool:
        """Whether ``row`` has more than one token to come, and would be let in by an empty engine:
        what is set aside for what it may still say does not shrink with what it has said."""
        if row.output_tokens + 1 >= self._limit(row):
            return False
        return row.length + self.growth(row) + 1 < self.kv.capacity_tokens

    def _send_back(self, row: SimRow) -> None:
        row.retracted = True
        row.missing_tokens = UNKNOWN
        self.waiting.append(row)

    def relax(self) -> None:
        """A decode step fitted: expect a little less growth from here on."""
        self._ratio = max(self._ratio - RATIO_STEP, LEAST_RATIO)

    def expected_growth(self) -> float:
        """Tokens that the running rows are expected to need still."""
        ratio = self._ratio
        return ratio * sum([self.growth(row) for row in self.running])

    def growth(self, row: SimRow) -> int:
        """Tokens that admission expects a row to produce still."""
        return max(0, min(self._limit(row) - row.output_tokens, CLIP_MAX_NEW_TOKENS))

    def _limit(self, row: SimRow) -> int:
        return max(row.max_new_tokens, 0 if row.is_warm_up else self._limit_tokens)

    @property
    def _mixed_rows(self) -> int:
        return len(self.running) if self.limits.mixed_chunk else 0

    def _chunk_tokens(self, ordered_tokens: int) -> int:
        """Prompt tokens of the next step; 0: it decodes."""
        mixed_rows, own = self._mixed_rows, self.limits.chunked_prefill_size
        budget = budget_of(
            PrefillOrder(ordered_tokens),
            most_tokens=own,
            page_size=1,
            mixed_rows=mixed_rows,
            can_decode=bool(self.running),
        )
        short = len(self.running) + self.reserved_tokens > self.kv.reachable_tokens
        if budget == OWN_CHOICE or (self.chunked is not None and short):
            # NOTE: SGLang comes to a chunk of a negative length if it runs more rows than that.
            return max(own - mixed_rows, 0 if self.chunked is None else 1)
        return budget

    def _pass_chunk(self, first: tuple[str, ...], batch: PrefillBatch, chunk_tokens: int) -> None:
        """Whole prompts of those that were named before the chunk in flight, which waits."""
        chunk = self.chunked
        if chunk is None or chunk.rid not in first:
            return
        named = first[: first.index(chunk.rid)]
        room = _Room(self, chunk_tokens)
        room.promised_tokens += self.reserved_tokens + 1 + self.growth(chunk)
        most_rows = self.limits.max_running_requests - len(self.running) - 1
        for row in list(self._named(named))[: max(0, most_rows)]:
            missing = row.length - self.kv.match(row)[1]
            if missing > room.chunk_tokens or not self._admit(row, batch, room):
                break
        self._leave_queue(batch.rows)

    def _fill(self, first: tuple[str, ...], batch: PrefillBatch, chunk_tokens: int) -> None:
        """The chunk in flight, then who waits, until the step or the memory is full."""
        room = _Room(self, chunk_tokens)
        chunk = self.chunked
        if chunk is not None:
            if self.kv.reachable_tokens <= self._mixed_rows:
                # Rows that decoded beside it took its room; SGLang runs out of memory here.
                self._retract(keep=0, spare_tokens=1)
                room = _Room(self, 1)
            self._continue_chunk(chunk, batch, room)
        admitted = len(batch.rows)
        for row in self._queue(first):
            if not room.open:
                break
            if len(self.running) + len(batch.rows) >= self.limits.max_running_requests:
                self._is_full = True
                break
            if not self._admit(row, batch, room):
                self._is_full = True
                break
            if room.promised_tokens >= self.kv.reachable_tokens:
                self._is_full = True
                break
        self._leave_queue(batch.rows[admitted:], in_order=not first)

    def _queue(self, first: tuple[str, ...]) -> Iterable[SimRow]:
        """Those that wait: the named ones, then the rest as they came."""
        if not first:
            return self.waiting
        named = list(self._named(first))
        ids = set(map(id, named))
        return itertools.chain(named, [row for row in self.waiting if id(row) not in ids])

    def _named(self, rids: tuple[str, ...]) -> Iterable[SimRow]:
        by_rid = {row.rid: row for row in self.waiting}
        return (by_rid[rid] for rid in rids if rid in by_rid)

    def _leave_queue(self, rows: list[SimRow], *, in_order: bool = False) -> None:
        if in_order:
            for _ in rows:
                self.waiting.popleft()
        elif rows:
            gone = set(map(id, rows))
            self.waiting = deque(row for row in self.waiting if id(row) not in gone)

    def _mix(self, batch: PrefillBatch) -> None:
        """Let every running row decode beside the prefill."""
        batch.decoding.extend(self.running)
        for row in batch.decoding:
            row.context_tokens += 1
        self.kv.take_one_each(batch.decoding)
        self.running = []

    def _continue_chunk(self, row: SimRow, batch: PrefillBatch, room: _Room) -> None:
        reachable = self.kv.reachable_tokens
        free = int(reachable - room.promised_tokens)
        # Left out of the batch, it would keep what it holds for good.
        most = min(room.chunk_tokens, free if free > 0 else reachable - self._mixed_rows)
        tokens = min(row.length - row.prefilled_tokens, most)
        if row.prefilled_tokens + tokens >= row.length:
            self.chunked = None
        self._add(row, tokens, batch, room)

    def _admit(self, row: SimRow, batch: PrefillBatch, room: _Room) -> bool:
        """Take ``row`` into the batch; False without memory for it."""
        _, hit = self.kv.match(row)
        missing = row.length - hit
        growth = self.growth(row)
        if missing + growth + 1 >= self.kv.reachable_tokens - room.promised_tokens:
            return False
        self.kv.admit(row)
        if missing + growth + 1 >= self.kv.reachable_tokens - room.promised_tokens:
            # Locking its own prefix took what it would have needed.
            self.kv.release(row)
            return False
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
        room.promised_tokens += 1 if row is self.chunked else 1 + self.growth(row)


class _Room:
    """What one prefill batch may still take."""

    def __init__(self, batcher: Batcher, chunk_tokens: int) -> None:
        limits = batcher.limits
        # SGLang counts rows that decode in the same step like tokens of a prompt.
        mixed_rows = len(batcher.running) if limits.mixed_chunk else 0
        self.chunk_tokens = chunk_tokens
        self.input_tokens = limits.max_prefill_tokens - mixed_rows
        self.promised_tokens = batcher.expected_growth() + mixed_rows

    @property
    def open(self) -> bool:
        return self.chunk_tokens > 0 and self.input_tokens > 0
