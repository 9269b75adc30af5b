"""Which of the steps that the controller saw belong to a point. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from governor_bench.profiling.point import LEAD_STEPS, Point

DECODE = 0
FIRST_DROPPED = 2
"""Steps after a change of the batch: the host still deals with who came and who went."""
LAST_DROPPED = 1
LEAST_PER_LEVEL = 3
"""Steps without which a row count has not been measured."""

CHANCE_TOKENS = 2
"""Tokens that a fresh prompt may find in the prefix cache by chance."""

_Count = Annotated[int, Meta(ge=0, le=1 << 40)]


class Step(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One measured step, as the engine reported it; an array in files."""

    kind: Annotated[int, Meta(ge=0, le=255)]
    """0: decode, 1: prefill, 2: both."""
    rows: _Count
    context_tokens: _Count
    prefill_tokens: _Count
    draft_tokens: _Count
    latency_s: Annotated[float, Meta(gt=0, le=3600)]
    draft_length: _Count = 0
    """Draft steps before it. Files of earlier versions have none."""


def steps_of(records: Iterable[dict[str, Any]], after_step: int) -> list[Step]:
    """Those of the controller's step records that came after a step, oldest first.

    Raises:
        msgspec.ValidationError: the controller sent something that is no step record.
    """
    newer = sorted(
        (record for record in records if record["step"] > after_step),
        key=lambda record: int(record["step"]),
    )
    return [
        msgspec.convert([item.get(name, 0) for name in Step.__struct_fields__], type=Step)
        for item in newer
        if item["latency_s"] > 0
    ]


def own_steps(point: Point, steps: Sequence[Step]) -> list[Step]:
    """The steps that measure ``point``: exactly its rows, at contexts that its rows can have.

    Whatever else ran meanwhile - others' requests, rows still joining - is left out, and so are the
    first and last steps of each stretch of equal rows and drafts.
    """
    if point.kind == "prefill":
        return [step for step in steps if _is_prefill_of(point, step)]
    kept: list[Step] = []
    for _, stretch in groupby(steps, key=lambda step: (step.kind, step.rows, step.draft_length)):
        inner = list(stretch)[FIRST_DROPPED:]
        kept += [step for step in inner[:-LAST_DROPPED] if _is_decode_of(point, step)]
    return kept


def joining_prefills(point: Point, steps: Sequence[Step]) -> list[Step]:
    """Steps that prefilled the rows of a decode point, if nobody else was there."""
    return [
        step
        for step in steps
        if step.kind != DECODE and step.prefill_tokens > step.rows and step.rows <= point.rows[0]
    ]


def levels_measured(point: Point, own: Sequence[Step]) -> list[int]:
    """Row counts of a decode point with enough steps, and draft lengths of one of drafts; of a
    prefill its prompt if there is one."""
    if point.kind == "prefill":
        return [point.prefill_tokens] if own else []
    if point.kind == "draft":
        drafted = Counter(step.draft_length for step in own)
        return [length for length in point.draft_lengths if drafted[length] >= LEAST_PER_LEVEL]
    counts = {rows: sum(step.rows == rows for step in own) for rows in point.rows}
    return [rows for rows, count in counts.items() if count >= LEAST_PER_LEVEL]


def joining_steps(point: Point, steps: Sequence[Step]) -> int:
    """Decode steps that ran before the batch had all of its rows."""
    joining = 0
    for step in steps:
        if step.kind == DECODE:
            if step.rows >= point.rows[0]:
                return joining
            joining += 1
    return joining


def _is_decode_of(point: Point, step: Step) -> bool:
    most = point.context_tokens + point.tokens_of_row(0, LEAD_STEPS)
    return (
        step.kind == DECODE
        and step.prefill_tokens == 0
        and step.rows in point.rows
        and step.draft_length in (point.draft_lengths or (0,))
        and bool(step.draft_tokens) == bool(step.draft_length)
        and point.context_tokens * step.rows <= step.context_tokens <= most * step.rows
    )


def _is_prefill_of(point: Point, step: Step) -> bool:
    if step.kind == DECODE:
        return False
    # An engine that mixes prefill and decode may count the decoded tokens among the prefilled.
    beside = {0, point.rows[0]}
    return step.rows - 1 in beside and any(
        point.prefill_tokens - CHANCE_TOKENS <= step.prefill_tokens - more <= point.prefill_tokens
        for more in beside
    )
