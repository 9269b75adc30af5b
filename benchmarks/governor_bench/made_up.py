"""Made-up engines for benches of the wire: how they introduce themselves, what they ask about."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import msgspec
import numpy as np
from governor_protos import PROTOCOL_MAJOR, PROTOCOL_MINOR
from governor_protos.columns import QUEUE_COLUMNS, ROW_COLUMNS, pack
from governor_protos.messages import (
    Drafting,
    DraftSource,
    Hello,
    Queue,
    Role,
    Rows,
    Snapshot,
    StepFeedback,
)

from controller_service.policies.base import Knob

DRAFT_LENGTHS = list(range(11))
WAITING = 64
"""Requests in the queue, under a policy that decides about prefill or about the order."""
PREFILL_TOKEN_S = 1e-4
DRAFTED = 3
"""Draft length of every step that has run."""
STEP_MODEL = (7e-3, 40e-6, 15e-9)
"""T = a + b*rows + c*context in seconds: a 32B model on eight GPUs."""


def hello_of(name: str, knobs: Set[Knob] = frozenset()) -> Hello:
    """An engine with the actuators that ``knobs`` need; one for drafts speculates."""
    actuators = {"branches", *knobs}
    if Knob.ORDER in knobs:
        actuators = actuators - {Knob.ORDER} | {"prefill", "retract"}
    hello = Hello(
        PROTOCOL_MAJOR, PROTOCOL_MINOR, name, "bench", "bench", "bench", "bench", 1, 0, True,
        4096, 1 << 24, 8192, 1, 8192, "", [], sorted(actuators),
    )  # fmt: skip
    if Knob.DRAFTS in knobs:
        hello = msgspec.structs.replace(
            hello,
            speculative_algorithm="EAGLE",
            draft_lengths=DRAFT_LENGTHS,
            drafting=Drafting(
                DraftSource.MODEL,
                most_tokens=DRAFT_LENGTHS[-1],
                is_ragged=True,
                takes_budget=True,
            ),
        )
    return hello


def snapshot_of(step: int, rows: int, knobs: Set[Knob] = frozenset()) -> Snapshot:
    """A batch in which half the rows are extra branches of requests of eight.

    Args:
        knobs: with drafts, rows report what became of theirs; with prefill or order, others wait.
    """
    rng = np.random.default_rng(step)
    context = rng.integers(128, 8192, rows)
    branching = np.arange(rows) < rows // 2
    columns: dict[str, Any] = {
        "request_id": np.arange(1, rows + 1),
        "group_id": np.where(branching, 1 + np.arange(rows) // 8, 0),
        "role": np.where(
            branching,
            np.where(np.arange(rows) % 8 == 0, Role.TRUNK, Role.OPPORTUNISTIC),
            Role.SERIAL,
        ),
        "flags": np.zeros(rows, int),
        "context_tokens": context,
        "output_tokens": context // 4,
        "max_new_tokens": np.full(rows, 1024),
        "priority": np.zeros(rows, int),
        "parked_steps": rng.integers(0, 3, rows),
        "age_s": rng.uniform(1, 20, rows),
        "since_first_token_s": rng.uniform(0.5, 19, rows),
        "since_last_token_s": rng.uniform(0, 0.02, rows),
        "ttft_slo_s": np.full(rows, 1.0),
        "tpot_slo_s": np.full(rows, 0.05),
        "group_output_tokens": np.where(branching, 2 * context, 0),
    }
    length = 0
    gained = np.zeros(rows, dtype=int)
    if Knob.DRAFTS in knobs:
        # Totals since the first step, of rows that stay; from row to row more is accepted.
        length = DRAFTED
        share = DRAFTED * (np.arange(rows) % 17)
        total = step * share // 17
        gained = total - (step - 1) * share // 17
        columns["draft_tokens"] = np.full(rows, DRAFTED * step)
        columns["accepted_tokens"] = total
        columns["output_tokens"] = step + total
    packed = {
        name: pack(code, columns[name].tolist())
        for name, code in ROW_COLUMNS.items()
        if name in columns  # an engine without speculation sends no draft columns
    }
    fixed, per_row, per_token = STEP_MODEL
    ran = int(rng.integers(rows // 2, rows + 1)) if rows > 1 else 1
    tokens = int(context[:ran].sum())
    seconds = fixed + per_row * ran * (1 + length) + per_token * tokens
    feedback = StepFeedback(
        step - 1, 0, ran, tokens, 0, seconds, 0, rows - ran, length * ran,
        int(gained[:ran].sum()), length,
    )  # fmt: skip
    whole = Snapshot(step, Rows(**packed), 1000, 1 << 24, 0, 0, [feedback], 0)
    return _with_queue(whole, rng) if knobs & {Knob.PREFILL, Knob.ORDER} else whole


def _with_queue(snapshot: Snapshot, rng: np.random.Generator) -> Snapshot:
    """Requests of all ages wait; the step before the newest prefilled."""
    prompts = rng.integers(16, 4096, WAITING)
    columns: dict[str, Any] = dict.fromkeys(QUEUE_COLUMNS, np.zeros(WAITING, int))
    columns |= {
        "request_id": np.arange(1 << 20, (1 << 20) + WAITING),
        "missing_tokens": prompts,
        "prompt_tokens": prompts,
        "max_new_tokens": np.full(WAITING, 1024),
        "age_s": rng.uniform(0, 20, WAITING),
        "ttft_slo_s": rng.uniform(1, 30, WAITING),
        "tpot_slo_s": np.full(WAITING, 0.05),
    }
    packed = {name: pack(code, columns[name].tolist()) for name, code in QUEUE_COLUMNS.items()}
    tokens = int(prompts[0])
    seconds = STEP_MODEL[0] + PREFILL_TOKEN_S * tokens
    prefill = StepFeedback(snapshot.for_step - 1, 1, 1, tokens, tokens, seconds, 0, 0)
    return msgspec.structs.replace(
        snapshot, queue=Queue(**packed), feedback=[*snapshot.feedback, prefill]
    )
