"""KV memory with a prefix cache, as SGLang's radix cache accounts for it (pages of one token).

What a row has in memory is a chain of segments: of its prompt, and of what it had written whenever
it was preempted. A segment is *locked* while a row uses it and *evictable* once none does; the
least recently used evictable one goes first, as a whole, when room is needed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from governor_sim.rows import SimRow


class KvMemory:
    """Counts tokens; holds none.

    Args:
        capacity_tokens: size of the pool.
    """

    def __init__(self, capacity_tokens: int) -> None:
        self.capacity_tokens = capacity_tokens
        self._own_tokens = 0
        self._locked_tokens = 0
        self._locks: dict[Hashable, list[int]] = {}  # key -> [tokens, rows that use it]
        self._evictable: OrderedDict[Hashable, int] = OrderedDict()
        self._evictable_tokens = 0
        self._set_aside: set[str] = set()

    @property
    def used_tokens(self) -> int:
        """Tokens that rows hold; what is merely cached does not count."""
        return self._own_tokens + self._locked_tokens

    @property
    def reachable_tokens(self) -> int:
        """Free tokens, and those that eviction would free."""
        return self.capacity_tokens - self.used_tokens

    def match(self, row: SimRow) -> tuple[int, int]:
        """Leading segments of ``row`` that are cached, and their tokens.

        The last token of a prefill is always computed anew: its logits are needed.
        """
        hits = tokens = 0
        for key, size in row.segments:
            if key not in self._locks and key not in self._evictable:
                break
            hits += 1
            tokens += size
        return hits, min(tokens, row.length - 1)

    def admit(self, row: SimRow) -> None:
        """Lock the cached prefix of ``row``."""
        row.hit_segments, row.hit_tokens = self.match(row)
        row.prefilled_tokens = row.hit_tokens
        for key, _ in row.segments[: row.hit_segments]:
            self._lock(key)

    def take(self, row: SimRow, tokens: int) -> None:
        """Give ``row`` slots of its own; cached text is evicted as needed."""
        row.own_tokens += tokens
        self._own_tokens += tokens
        self._evict()

    def take_one_each(self, rows: list[SimRow]) -> None:
        """A decode step: one more slot for every row."""
        for row in rows:
            row.own_tokens += 1
        self._own_tokens += len(rows)
        self._evict()

    def take_drafts(self, rows: list[SimRow], tokens: list[int]) -> None:
        """Slots for draft tokens, until they are verified."""
        for row, count in zip(rows, tokens, strict=True):
            row.own_tokens += count
        self._own_tokens += sum(tokens)
        self._evict()

    def drop_drafts(self, row: SimRow, tokens: int) -> None:
        """Draft tokens that were not accepted."""
        self._give_back(row, tokens)

    def share(self, row: SimRow) -> None:
        """``row``'s prefill is done: put it into the cache and hold it there."""
        self._set_aside.discard(row.rid)
        for key, size in row.segments[row.hit_segments :]:
            if key in self._locks or key in self._evictable:
                self._lock(key)  # somebody else was faster: the copy is dropped
            else:
                self._locks[key] = [size, 1]
                self._locked_tokens += size
            self._give_back(row, size)
        # The last prompt token of a full hit was computed twice.
        twice = sum(size for _, size in row.segments[: row.hit_segments]) - row.hit_tokens
        self._give_back(row, twice)
        row.hit_segments = len(row.segments)

    def release(self, row: SimRow) -> None:
        """``row`` leaves; what it shared stays cached until room is needed."""
        self._give_back(row, row.own_tokens)
        # From the end, so that a prefix outlives what continues it.
        for key, _ in reversed(row.segments[: row.hit_segments]):
            entry = self._locks[key]
            entry[1] -= 1
            if not entry[1]:
                del self._locks[key]
                self._locked_tokens -= entry[0]
                self._evictable[key] = entry[0]
                self._evictable_tokens += entry[0]
        row.hit_segments = row.hit_tokens = row.prefilled_tokens = 0

    def set_aside(self, row: SimRow) -> None:
        """``row``, whose prefill is done, leaves and will come back: all of it stays cached until
        room is needed, but for the last token, which is computed anew in any case."""
        self._cache_output(row)
        self.release(row)
        self._set_aside.add(row.rid)

    def finish(self, row: SimRow) -> None:
        """``row`` leaves for good.

        SGLang caches what it has written as well. Nobody will ask for that. It counts only while
        somebody is set aside: what he has left is older, and goes first.
        """
        if self._set_aside:
            self._cache_output(row)
        self.release(row)

    def _cache_output(self, row: SimRow) -> None:
        """Make what ``row`` has written since its prefill one more segment of it."""
        cached = sum(size for _, size in row.segments)
        tokens = min(row.own_tokens, row.length - 1 - cached)
        if tokens <= 0:
            return
        key = ("output", row.rid, cached)
        row.segments += ((key, tokens),)
        row.hit_segments += 1
        self._give_back(row, tokens)
        self._locks[key] = [tokens, 1]
        self._locked_tokens += tokens

    def _give_back(self, row: SimRow, tokens: int) -> None:
        tokens = max(0, min(tokens, row.own_tokens))
        row.own_tokens -= tokens
        self._own_tokens -= tokens

    def _lock(self, key: Hashable) -> None:
        entry = self._locks.get(key)
        if entry is not None:
            entry[1] += 1
            return
        size = self._evictable.pop(key)
        self._evictable_tokens -= size
        self._locks[key] = [size, 1]
        self._locked_tokens += size

    def _evict(self) -> None:
        while self._evictable_tokens > max(0, self.reachable_tokens):
            _, size = self._evictable.popitem(last=False)
            self._evictable_tokens -= size
