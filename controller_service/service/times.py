"""How long requests will occupy the engine still (LAPS-SD, arXiv 2505.17074)."""

from __future__ import annotations

import numpy as np

from controller_service.predictors.base import Floats, StepLatencyPredictor
from controller_service.service.state import Service
from controller_service.state import StepState

UNKNOWN_ROUND_S = 0.02
"""A round, as long as nothing is known of it: all that hangs on it is the order."""


def round_s(state: StepState, predictor: StepLatencyPredictor) -> float:
    """One round of the batch: ``T_LLM + n T_SSM``, and what others prefill in between.

    Everybody in the batch goes through the same rounds, so that they differ by how many they need.
    What rounds have taken of late, once there were some; until then what one is predicted to take.
    """
    if state.service is not None and state.service.round_s > 0.0:
        return state.service.round_s
    if not predictor.fitted:
        return UNKNOWN_ROUND_S
    rows = float(max(state.running_rows, 1))
    drafts = state.drafts
    length = 0 if drafts is None else max(drafts.last_length, 0)
    verify_s = predictor.predict(
        rows, float(state.running_context_tokens), draft_tokens=length * rows
    )
    drafting_s = 0.0 if drafts is None else float(drafts.drafting_s(length, rows, length * rows))
    return max(float(verify_s) + drafting_s, 0.0)


def remaining_s(service: Service, one_round_s: float, quantile: float = 0.0) -> Floats:
    """``T_i = L_i (n T_SSM + T_LLM) / (n A_i + 1)``, of what is left to write, shape ``(n,)``.

    Args:
        quantile: of the length; 0: its mean.
    """
    tokens = service.tokens_at(quantile) if quantile else service.remaining_tokens
    seconds: Floats = tokens / service.tokens_per_round * one_round_s
    return seconds


def levels(seconds: Floats, quantum_s: float, queues: int) -> Floats:
    """The queue, from 0, of who has had or needs so much: quanta double from one to the next."""
    with np.errstate(divide="ignore"):
        found = np.ceil(np.log2(seconds / quantum_s))
    level: Floats = np.clip(found, 0.0, queues - 1.0)
    return level
