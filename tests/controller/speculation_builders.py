"""Engines that speculate, for the controller's tests."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from controller_builders import hello_of, rows_of
from governor_protos.messages import Drafting, DraftSource, Hello, Snapshot

from controller_service.predictors.base import DraftingCost
from controller_service.speculation.drafting import DraftState
from controller_service.state import StepState

LENGTHS = (0, 1, 2, 3, 5, 7)


def drafting_hello(**changes: Any) -> Hello:
    """An engine with the knob ``drafts``; ``changes`` are of its :class:`Drafting`."""
    drafting = msgspec.structs.replace(
        Drafting(DraftSource.MODEL, most_tokens=7, is_ragged=True), **changes
    )
    return msgspec.structs.replace(
        hello_of(),
        speculative_algorithm="EAGLE",
        draft_lengths=list(LENGTHS),
        knobs=["branches", "drafts"],
        drafting=drafting,
    )


def draft_state(acceptance: list[float], **changes: Any) -> DraftState:
    """Drafts that cost a millisecond a step, of rows that are right this often."""
    facts: dict[str, Any] = {
        "lengths": LENGTHS,
        "width": 1,
        "most_tokens": 7,
        "is_ragged": True,
        "takes_budget": False,
        "switch_s": 0.0,
        "last_length": -1,
        "acceptance": np.array(acceptance),
        "by_position": np.ones(7),
        "cost": DraftingCost(1e-3),
        "batch_acceptance": 0.6,
        "measured_tokens": np.full(len(LENGTHS), np.nan),
    }
    return DraftState(**facts | changes)


def drafting_state(
    rows: list[dict[str, float]], drafts: DraftState, *, kv_free: int = 100_000, for_step: int = 7
) -> StepState:
    snapshot = Snapshot(for_step, rows_of(rows), 1_000_000 - kv_free, 1_000_000, 0, 0, [], 0)
    return StepState.from_snapshot(snapshot, 0.0, drafts)
