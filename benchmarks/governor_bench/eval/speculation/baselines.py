"""Policies that others have, written anew to be compared with. Not for serving.

``sglang_adaptive``         SGLang's ``--speculative-adaptive`` with its own settings
``batch_table:R=K,...``     a draft length by batch size, as vLLM and TensorRT-LLM have it
``local_tree:N``            each request spends N nodes on its own best draft tree
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from controller_service.policies.base import (
    DraftPlan,
    Knob,
    NoConfig,
    Part,
    Policy,
    PolicyKind,
    StepPlan,
)
from controller_service.policies.drafting import Batch
from controller_service.policies.eager import EAGER
from controller_service.policies.fixed_draft import of_length
from controller_service.policies.registry import parse_policy
from controller_service.predictors.base import StepLatencyPredictor
from controller_service.speculation.trees import bucket_of, node_chances
from controller_service.state import StepState

SGLANG_ADAPTIVE, BATCH_TABLE, LOCAL_TREE = "sglang_adaptive", "batch_table", "local_tree"
TIERS = ((1, (1, 3, 7), -0.25), (8, (0, 1, 3), 0.0), (32, (0, 1), 0.0), (64, (0,), 0.0))
"""SGLang 0.5.17's own: batch size from which a tier counts, its lengths, and how much below a
length's threshold the average must fall before the next shorter one is taken."""
MEMORY = 0.2
UPDATE_STEPS = 5
WARM_UP_STEPS = 10
FIRST_LENGTH = 3


def policy_of(text: str) -> Policy:
    """A policy as the controller reads it, or one of this module. Each call gives a fresh one.

    Raises:
        ValueError: there is none of that name.
    """
    name, _, settings = text.partition(":")
    if name == SGLANG_ADAPTIVE:
        return _policy(text, SglangAdaptive().decide)
    if name == BATCH_TABLE:
        return _policy(text, BatchTable(settings).decide)
    if name == LOCAL_TREE:
        return _policy(text, LocalTree(int(settings)).decide)
    return parse_policy(text)


def _policy(text: str, decide: Any) -> Policy:
    kind = PolicyKind(text.partition(":")[0], decide, knob=Knob.DRAFTS)
    return Policy((Part(EAGER, NoConfig()), Part(kind, NoConfig())), text)


class _Tier:
    """One tier's length, moved along its lengths by an average of accepted draft tokens."""

    def __init__(self, lengths: tuple[int, ...], down: float) -> None:
        self._lengths, self._down = lengths, down
        self.length = FIRST_LENGTH if FIRST_LENGTH in lengths else lengths[len(lengths) // 2]
        self._average = self.length - 1.0
        self._steps = 0

    def verified(self, accepted_per_row: float) -> None:
        if self.length:
            self._average += MEMORY * (accepted_per_row - self._average)
        self._steps += 1
        since = self._steps - WARM_UP_STEPS
        if since > 0 and since % UPDATE_STEPS == 0:
            self._move()

    def _move(self) -> None:
        place = self._lengths.index(self.length)
        if not self.length:
            # Nothing is drafted, so nothing is seen: try the shortest draft again.
            self.length = self._lengths[min(place + 1, len(self._lengths) - 1)]
            if self.length and self._average < 0:
                self._average = self.length - 1.0
            return
        start = place
        while place and self._average <= self._floor(self._lengths[place - 1]):
            place -= 1
        if place == start:
            while place + 1 < len(self._lengths) and self._average > self._lengths[place] - 0.5:
                place += 1
        self.length = self._lengths[place]

    def _floor(self, shorter: int) -> float:
        return (shorter - 0.5 if shorter else 0.5) + self._down


class SglangAdaptive:
    """A moving average of accepted tokens a step, by batch-size tier; no model of cost."""

    def __init__(self) -> None:
        self._tiers = [(rows, _Tier(lengths, down)) for rows, lengths, down in TIERS]

    def decide(
        self, state: StepState, predictor: StepLatencyPredictor, config: Any, plan: StepPlan
    ) -> DraftPlan:
        drafts = state.drafts
        if drafts is None:
            return DraftPlan()
        for step in drafts.finished:
            self._tier(step.rows).verified(step.accepted_tokens / step.rows)
        batch = Batch.of(state, predictor, plan, drafts)
        return of_length(batch, self._tier(len(batch.rows)).length)

    def _tier(self, rows: int) -> _Tier:
        return next(
            (tier for least, tier in reversed(self._tiers) if rows >= least), self._tiers[0][1]
        )


class BatchTable:
    """A draft length by batch size.

    Args:
        settings: ``rows=length,...``: from so many rows on, so long.
    """

    def __init__(self, settings: str) -> None:
        pairs = (item.split("=") for item in settings.split(","))
        self._table = sorted((int(rows), int(length)) for rows, length in pairs)

    def decide(
        self, state: StepState, predictor: StepLatencyPredictor, config: Any, plan: StepPlan
    ) -> DraftPlan:
        drafts = state.drafts
        if drafts is None:
            return DraftPlan()
        batch = Batch.of(state, predictor, plan, drafts)
        rows = len(batch.rows)
        length = next(
            (length for least, length in reversed(self._table) if rows >= least), self._table[0][1]
        )
        return of_length(batch, length)


class LocalTree:
    """Every request has the best ``nodes`` nodes of its own; the depth is the best for all.

    What it knows of acceptance and cost is what ``draft_tree`` knows; only who gets the nodes
    differs.
    """

    def __init__(self, nodes: int) -> None:
        self._nodes = nodes

    def decide(
        self, state: StepState, predictor: StepLatencyPredictor, config: Any, plan: StepPlan
    ) -> DraftPlan:
        drafts = state.drafts
        if drafts is None:
            return DraftPlan()
        batch = Batch.of(state, predictor, plan, drafts)
        count = len(batch.rows)
        level = bucket_of(drafts.acceptance[batch.rows])
        lengths = np.array([length for length in drafts.lengths if length], dtype=np.float64)
        given = [
            1.0 + node_chances(drafts.width, int(length), self._nodes)[level].sum(axis=1)
            for length in lengths
        ]
        merit = np.array([np.exp(np.log(tokens).mean()) for tokens in given])
        step_s = batch.step_s(np.full(len(lengths), float(self._nodes * count)), lengths)
        best = int(np.argmax(merit / step_s))
        return DraftPlan(
            length=int(lengths[best]),
            caps=np.full(state.rows, self._nodes, dtype=np.uint8),
            draft_tokens=self._nodes * count,
            expected_tokens=float(given[best].sum()),
            predicted_step_s=float(step_s[best]),
        )


class Table(msgspec.Struct, frozen=True):
    """A table by batch size in the making: how good each length was at each load."""

    by_load: dict[float, int]

    def text(self) -> str:
        """As :func:`policy_of` reads it."""
        entries = ",".join(f"{load:g}={length}" for load, length in sorted(self.by_load.items()))
        return f"{BATCH_TABLE}:{entries}"
