"""What a chunk of prefill takes, and how long it keeps those waiting who decode."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from controller_service.predictors.base import LEAST_LATENCY_S, Floats, StepLatencyPredictor
from controller_service.prefill.queue import PrefillState
from controller_service.state import StepState

TRIED = 48
"""Chunk sizes that are tried for the largest one that fits a time."""


class ChunkCost(msgspec.Struct, frozen=True, eq=False):
    """Predicted times of chunks beside, or in turn with, the rows that decode."""

    predictor: StepLatencyPredictor
    queue: PrefillState
    rows: int
    """Rows that decode at the step, or would."""
    context_tokens: float
    decode_s: float
    """Their step without any prefill; 0 without rows."""

    @classmethod
    def of(
        cls,
        state: StepState,
        queue: PrefillState,
        predictor: StepLatencyPredictor,
        parked: Any,
    ) -> ChunkCost:
        """
        Args:
            parked: rows that sit the step out, shape ``(rows,)``.
        """
        advancing = state.running & ~parked
        rows = int(np.count_nonzero(advancing))
        context = float(np.add.reduce(state.context_tokens[advancing], dtype=np.int64))
        decode_s = float(predictor.predict(float(rows), context)) if rows else 0.0
        return cls(predictor, queue, rows, context, decode_s)

    def stall_s(self, tokens: Floats) -> Floats:
        """How much longer a chunk keeps decoding rows from their next token, shape of ``tokens``.

        Where decode and prefill take turns that is the whole step of prefill.
        """
        if not self.queue.mixes_chunks:
            alone: Floats = self.predictor.predict(np.ones_like(tokens), tokens, tokens)
            return alone
        rows = np.full_like(tokens, self.rows + 1.0)
        whole: Floats = self.predictor.predict(rows, self.context_tokens + tokens, tokens)
        return whole - self.decode_s

    def step_s(self, tokens: float) -> float:
        """The whole step that prefills ``tokens``."""
        stall_s = float(self.stall_s(np.array([tokens]))[0])
        return stall_s + self.decode_s if self.queue.mixes_chunks else stall_s

    @property
    def start_s(self) -> float:
        """What a step of prefill takes besides its tokens."""
        if self.queue.mixes_chunks:
            return self.decode_s
        return float(self.predictor.predict(1.0, 0.0))

    def token_s(self) -> float:
        """Time per prompt token when steps prefill as much as they can, one after the other."""
        most = float(self.queue.most_tokens)
        return max(self.step_s(most), LEAST_LATENCY_S) / most

    def most_within(self, stall_s: float, least_tokens: int) -> int:
        """The largest chunk that stalls decoding rows for no longer than ``stall_s``.

        Returns:
            Tokens, at least ``least_tokens`` and at most what a step can prefill.
        """
        most = self.queue.most_tokens
        least = min(least_tokens, most)
        if not self.rows:
            return most
        sizes = np.unique(np.linspace(least, most, TRIED).astype(np.int64)).astype(np.float64)
        fits = np.flatnonzero(self.stall_s(sizes) <= stall_s)
        return int(sizes[fits[-1]]) if fits.size else least
