"""Which points of rows x context x prefill x draft length to measure, coarse to fine. Pure.

A decode point is a *staircase*: its first row count is sent as that many requests of equal context,
and requests end a few steps apart so that the batch passes through the other row counts on its way
down. One prefill so measures many row counts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

LEAST_CONTEXT_TOKENS = 64
"""Of a row."""
KV_SHARE = 0.85
"""Of the KV memory that a point may fill, others included."""
STAIRS = 8
"""Row counts of one point: long enough to share a prefill, short enough to let others in."""
STAIR_STEPS = 12
SINGLE_STEPS = 24
LEAD_STEPS = 64
"""Steps at most until the last request of a point has joined the batch."""
TAIL_STEPS = 10
"""Steps after the last one that counts: an engine reports every eighth step at least."""
PREFILL_REPEATS = 4
STEPS_PER_PREFILL = 12
"""Decode steps that pass, at most, between two prefills that are sent one after the other."""
PREFILL_BESIDE_ROWS = (8, 64)
CONTEXTS_BEFORE_SIZES = 2
FILL_POINTS = 400
_R2 = (0.7548776662466927, 0.5698402909980532)
"""Roberts' R2 sequence: additive steps that fill a square evenly at any length."""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the engine and the operator allow.

    Raises:
        ValueError: nothing can be measured within them.
    """

    max_rows: int
    max_context_tokens: int
    """Of one row, its output included."""
    kv_tokens: int
    page_tokens: int = 1
    chunk_tokens: int = 8192
    """Prompt tokens that the engine prefills in one step."""
    graph_rows: tuple[int, ...] = ()
    draft_lengths: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if self.max_rows < 1:
            raise ValueError(f"max_rows: {self.max_rows}; measure at least one row")
        if self.page_tokens < 1 or self.chunk_tokens < 1:
            raise ValueError("page_tokens and chunk_tokens: must be at least 1")
        if not fits(Point("decode", LEAST_CONTEXT_TOKENS, (1,)), self):
            raise ValueError(
                f"max_context_tokens {self.max_context_tokens} and kv_tokens {self.kv_tokens} are "
                f"too few: one row of {LEAST_CONTEXT_TOKENS} tokens and its output do not fit"
            )


class Point(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing to measure."""

    kind: Literal["decode", "prefill"]
    context_tokens: int
    """Prompt of each decoding row."""
    rows: tuple[int, ...]
    """Row counts, falling; of a prefill the one number of rows that decode beside it, maybe 0."""
    prefill_tokens: int = 0
    """Prompt of the requests whose prefill is measured."""
    draft_length: int = 0

    @property
    def name(self) -> str:
        """For people, and the point's identity in files."""
        draft = f", draft {self.draft_length}" if self.draft_length else ""
        if self.kind == "decode":
            rows = ",".join(map(str, self.rows))
            return f"decode, rows {rows}, context {self.context_tokens}{draft}"
        beside = f" beside {self.rows[0]} rows" if self.rows[0] else ""
        return f"prefill {self.prefill_tokens}{beside}{draft}"

    def steps_of_row(self, index: int, lead_steps: int = LEAD_STEPS) -> int:
        """Output tokens of the row with this index, 0 for the one that stays longest."""
        if self.kind == "prefill":
            return lead_steps + PREFILL_REPEATS * STEPS_PER_PREFILL
        each = SINGLE_STEPS if len(self.rows) == 1 else STAIR_STEPS
        levels = sum(1 for rows in self.rows if rows > index)
        tail = TAIL_STEPS if index < self.rows[-1] else 0
        return lead_steps + levels * each + tail


def kv_need(point: Point, limits: Limits) -> int:
    """KV tokens that the point takes at most, in whole pages."""
    page = limits.page_tokens

    def pages(tokens: int) -> int:
        return -(-tokens // page) * page

    need = pages(point.prefill_tokens + 2) if point.prefill_tokens else 0
    # Rows that leave together need the same.
    for rows, fewer in zip(point.rows, [*point.rows[1:], 0], strict=True):
        need += (rows - fewer) * pages(point.context_tokens + point.steps_of_row(rows - 1))
    return need


def fits(point: Point, limits: Limits, others_tokens: int = 0) -> bool:
    """Whether the engine has room for the point beside ``others_tokens`` of KV in use."""
    longest = point.prefill_tokens + 2
    if point.rows[0]:
        longest = max(longest, point.context_tokens + point.steps_of_row(0))
    return (
        point.rows[0] <= limits.max_rows
        and longest <= limits.max_context_tokens
        and kv_need(point, limits) + others_tokens <= KV_SHARE * limits.kv_tokens
    )


def row_levels(limits: Limits) -> tuple[int, ...]:
    """Row counts worth a measurement: powers of two, each graph size and one row more."""
    levels = {1, limits.max_rows}
    levels |= {1 << power for power in range(limits.max_rows.bit_length())}
    for size in limits.graph_rows:
        levels |= {size, size + 1}
    return tuple(sorted(rows for rows in levels if 1 <= rows <= limits.max_rows))


def context_levels(limits: Limits) -> tuple[int, ...]:
    """Contexts of a row: powers of two from the least, and the largest that fits."""
    low, high = LEAST_CONTEXT_TOKENS, limits.max_context_tokens
    while high - low > 1:  # the largest context that one row may have
        middle = (low + high) // 2
        inside = fits(Point("decode", middle, (1,)), limits)
        low, high = (middle, high) if inside else (low, middle)
    levels = [LEAST_CONTEXT_TOKENS]
    while levels[-1] * 2 <= low:
        levels.append(levels[-1] * 2)
    if low > 1.25 * levels[-1]:
        levels.append(low)
    return tuple(levels)


def make_plan(limits: Limits) -> list[Point]:
    """All points, in the order in which they are worth most. The same for equal limits."""
    points: dict[str, Point] = {}
    for length in limits.draft_lengths:
        for point in _points(limits):
            drafted = msgspec.structs.replace(point, draft_length=length)
            if fits(drafted, limits):
                points.setdefault(drafted.name, drafted)
    return list(points.values())


def _points(limits: Limits) -> Iterator[Point]:
    levels, contexts = row_levels(limits), context_levels(limits)
    powers = [rows for rows in levels if rows & (rows - 1) == 0 or rows == limits.max_rows]
    yield from _corners(limits, levels[-1], contexts)
    # A row more than a graph size is computed like the next size: that can wait.
    sizes = [rows for rows in levels if rows in powers or rows in limits.graph_rows]
    chunks = _spread(_chunks(limits))
    for index, context in enumerate(_spread(contexts)):
        yield from _stairs(powers, context, limits)
        if chunks:
            yield Point("prefill", 0, (0,), chunks.pop(0))
        if index == CONTEXTS_BEFORE_SIZES - 1:
            yield from _stairs(sizes, contexts[0], limits)
    yield from (Point("prefill", 0, (0,), tokens) for tokens in chunks)
    for context in (contexts[len(contexts) // 2], contexts[0]):
        yield from _stairs(levels, context, limits)
    for rows in PREFILL_BESIDE_ROWS:
        for tokens in _spread(_chunks(limits))[:2]:
            yield Point("prefill", LEAST_CONTEXT_TOKENS, (rows,), tokens)
    yield from _fill(limits, levels, contexts)


def _corners(limits: Limits, most_rows: int, contexts: Sequence[int]) -> Iterator[Point]:
    # The cheapest ones first: from these two follows what all others are going to cost.
    yield Point("decode", contexts[0], (1,))
    yield Point("prefill", 0, (0,), _chunks(limits)[min(1, len(_chunks(limits)) - 1)])
    yield Point("decode", contexts[0], (most_rows,))
    yield Point("prefill", 0, (0,), _chunks(limits)[-1])
    yield Point("decode", contexts[-1], (1,))
    full = [c for c in contexts if fits(Point("decode", c, (most_rows,)), limits)]
    if full:
        yield Point("decode", full[-1], (most_rows,))


def _stairs(levels: Sequence[int], context: int, limits: Limits) -> Iterator[Point]:
    """Points that pass through those of ``levels`` that fit at this context, the most first."""
    falling = levels[: _inside(levels, context, limits)][::-1]
    for start in range(0, len(falling), STAIRS):
        yield Point("decode", context, tuple(falling[start : start + STAIRS]))


def _inside(levels: Sequence[int], context: int, limits: Limits) -> int:
    """How many of the rising ``levels`` fit at this context."""
    return bisect_left(
        levels, True, key=lambda rows: not fits(Point("decode", context, (rows,)), limits)
    )


def _fill(limits: Limits, levels: Sequence[int], contexts: Sequence[int]) -> Iterator[Point]:
    """Neighbouring row counts at contexts in between, spread evenly over both."""
    low, high = contexts[0], contexts[-1]
    for index in range(1, FILL_POINTS + 1):
        u, v = ((0.5 + index * step) % 1.0 for step in _R2)
        context = round(low * (high / low) ** v)
        inside = _inside(levels, context, limits)
        if inside:
            at = min(int(u * inside), inside - 1)
            yield Point("decode", context, tuple(levels[max(0, at - 2) : at + 1][::-1]))


def _chunks(limits: Limits) -> list[int]:
    """Prompts that are prefilled in one step: powers of four from the least to the budget."""
    most = min(limits.chunk_tokens, limits.max_context_tokens - 2)
    most = min(most, int(KV_SHARE * limits.kv_tokens) - limits.page_tokens - 2)
    chunks = [LEAST_CONTEXT_TOKENS]
    while chunks[-1] * 4 <= most:
        chunks.append(chunks[-1] * 4)
    return chunks if chunks[-1] >= most else [*chunks, most]


def _spread(items: Sequence[int]) -> list[int]:
    """The ends first, then middles of what is left: coarse to fine."""
    order = [0, len(items) - 1]
    gaps = [(0, len(items) - 1)]
    while gaps:
        left, right = gaps.pop(0)
        if right - left > 1:
            middle = (left + right) // 2
            order.append(middle)
            gaps += [(left, middle), (middle, right)]
    return [items[index] for index in dict.fromkeys(order)]
