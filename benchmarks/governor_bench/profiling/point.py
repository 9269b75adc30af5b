"""One thing to measure, and whether an engine has room for it. Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

LEAST_CONTEXT_TOKENS = 64
"""Of a row."""
KV_SHARE = 0.85
"""Of the KV memory that a point may fill, others included."""
STAIR_STEPS = 12
SINGLE_STEPS = 24
DRAFT_STEPS = 12
"""Steps at each draft length."""
SPARE_DRAFT_STEPS = 8
"""Steps that may pass at each length until the next one is set."""
LEAD_STEPS = 64
"""Steps at most until the last request of a point has joined the batch."""
TAIL_STEPS = 10
"""Steps after the last one that counts: an engine reports every eighth step at least."""
PREFILL_REPEATS = 4
STEPS_PER_PREFILL = 12
"""Decode steps that pass, at most, between two prefills that are sent one after the other."""


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
    draft_lengths: tuple[int, ...] = ()
    """Rising, 0 among them; empty for an engine that does not speculate."""

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


class Point(msgspec.Struct, frozen=True):
    """One thing to measure.

    NOTE: unknown fields pass, as earlier versions wrote a ``draft_length`` into their files.
    """

    kind: Literal["decode", "prefill", "draft"]
    context_tokens: int
    """Prompt of each decoding row."""
    rows: tuple[int, ...]
    """Row counts, falling; of a prefill the one number of rows that decode beside it, maybe 0; of
    drafts the one number of rows that draft."""
    prefill_tokens: int = 0
    """Prompt of the requests whose prefill is measured."""
    draft_lengths: tuple[int, ...] = ()
    """What these rows draft, one length after another; 0 comes first."""

    @property
    def name(self) -> str:
        """For people, and the point's identity in files."""
        rows = ",".join(map(str, self.rows))
        if self.kind == "decode":
            return f"decode, rows {rows}, context {self.context_tokens}"
        if self.kind == "draft":
            lengths = ",".join(map(str, self.draft_lengths))
            return f"draft {lengths}, rows {rows}, context {self.context_tokens}"
        beside = f" beside {self.rows[0]} rows" if self.rows[0] else ""
        return f"prefill {self.prefill_tokens}{beside}"

    @property
    def visits(self) -> tuple[int, ...]:
        """Draft lengths in the order in which they are set. No drafts come first and last, so that
        an engine that warms up meanwhile is compared with both ends."""
        return (*self.draft_lengths, *self.draft_lengths[:1])

    def tokens_of_row(self, index: int, lead_steps: int = LEAD_STEPS) -> int:
        """Output tokens of the row with this index, 0 for the one that stays longest. Without
        drafts a step gives one."""
        if self.kind == "prefill":
            return lead_steps + PREFILL_REPEATS * STEPS_PER_PREFILL
        if self.kind == "draft":
            # Enough even if every draft token is accepted; what is left over is aborted.
            steps = DRAFT_STEPS + SPARE_DRAFT_STEPS
            return lead_steps + TAIL_STEPS + steps * sum(1 + length for length in self.visits)
        each = SINGLE_STEPS if len(self.rows) == 1 else STAIR_STEPS
        levels = sum(1 for rows in self.rows if rows > index)
        tail = TAIL_STEPS if index < self.rows[-1] else 0
        return lead_steps + levels * each + tail


def kv_need(point: Point, limits: Limits) -> int:
    """KV tokens that the point takes at most, in whole pages."""
    page = limits.page_tokens

    def pages(tokens: int) -> int:
        return -(-tokens // page) * page

    # SGLang sets room for the longest draft aside, twice where a step is planned beside another.
    ahead = 2 * (1 + limits.draft_lengths[-1]) if limits.draft_lengths else 0
    need = pages(point.prefill_tokens + 2) if point.prefill_tokens else 0
    # Rows that leave together need the same.
    for rows, fewer in zip(point.rows, [*point.rows[1:], 0], strict=True):
        need += (rows - fewer) * pages(point.context_tokens + point.tokens_of_row(rows - 1) + ahead)
    return need


def fits(point: Point, limits: Limits, others_tokens: int = 0) -> bool:
    """Whether the engine has room for the point beside ``others_tokens`` of KV in use."""
    longest = point.prefill_tokens + 2
    if point.rows[0]:
        longest = max(longest, point.context_tokens + point.tokens_of_row(0))
    return (
        point.rows[0] <= limits.max_rows
        and longest <= limits.max_context_tokens
        and kv_need(point, limits) + others_tokens <= KV_SHARE * limits.kv_tokens
    )
