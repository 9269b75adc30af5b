"""Which points of rows x context x prefill x draft length to measure, coarse to fine. Pure.

A decode point is a *staircase*: its first row count is sent as that many requests of equal context,
and requests end a few steps apart so that the batch passes through the other row counts on its way
down. One prefill so measures many row counts. A point of drafts takes one batch through the
engine's draft lengths, so that only they differ.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import islice

from governor_bench.profiling.point import (
    KV_SHARE,
    LEAST_CONTEXT_TOKENS,
    Limits,
    Point,
    fits,
)

STAIRS = 8
"""Row counts of one point: long enough to share a prefill, short enough to let others in."""
PREFILL_BESIDE_ROWS = (8, 64)
CONTEXTS_BEFORE_SIZES = 2
FILL_POINTS = 400
DRAFT_SIZES = 6
"""Batch sizes at which drafting is measured."""
DRAFTS_AT_ONCE = 5
"""Draft lengths of one point, beside none: more of them would need much KV memory for each row."""
DRAFTS_FIRST = 4
"""Points of drafts before all others but the corners: one row, many, and two sizes in between."""
_R2 = (0.7548776662466927, 0.5698402909980532)
"""Roberts' R2 sequence: additive steps that fill a square evenly at any length."""


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
    points = {point.name: point for point in _points(limits) if fits(point, limits)}
    return list(points.values())


def _points(limits: Limits) -> Iterator[Point]:
    levels, contexts = row_levels(limits), context_levels(limits)
    powers = [rows for rows in levels if rows & (rows - 1) == 0 or rows == limits.max_rows]
    yield from _corners(limits, levels[-1], contexts)
    drafts = _drafts(limits, powers, contexts)
    yield from islice(drafts, DRAFTS_FIRST)
    # A row more than a graph size is computed like the next size: that can wait.
    sizes = [rows for rows in levels if rows in powers or rows in limits.graph_rows]
    chunks = _spread(_chunks(limits))
    for index, context in enumerate(_spread(contexts)):
        yield from _stairs(powers, context, limits)
        if chunks:
            yield Point("prefill", 0, (0,), chunks.pop(0))
        if index == CONTEXTS_BEFORE_SIZES - 1:
            yield from _stairs(sizes, contexts[0], limits)
        yield from islice(drafts, 1)
    yield from drafts
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


def _drafts(limits: Limits, levels: Sequence[int], contexts: Sequence[int]) -> Iterator[Point]:
    """A few of ``levels`` through the engine's draft lengths, the ends first; then at a context in
    the middle, where verification reads more."""
    others = limits.draft_lengths[1:]
    # Of many lengths, each point takes some from all over.
    parts = -(-len(others) // DRAFTS_AT_ONCE)
    chosen = [(0, *others[first::parts]) for first in range(parts)]
    for context in dict.fromkeys((contexts[0], contexts[len(contexts) // 2])):
        points = [[Point("draft", context, (rows,), 0, part) for part in chosen] for rows in levels]
        fitting = [point for point in points if all(fits(part, limits) for part in point)]
        for index in _spread(range(len(fitting)))[:DRAFT_SIZES]:
            yield from fitting[index]


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
    if not items:
        return []
    order = [0, len(items) - 1]
    gaps = [(0, len(items) - 1)]
    while gaps:
        left, right = gaps.pop(0)
        if right - left > 1:
            middle = (left + right) // 2
            order.append(middle)
            gaps += [(left, middle), (middle, right)]
    return [items[index] for index in dict.fromkeys(order)]
