"""How long requests will occupy the engine still (LAPS-SD, arXiv 2505.17074)."""

from __future__ import annotations

import numpy as np

from controller_service.predictors.base import Floats, StepLatencyPredictor
from controller_service.service.state import Service
from controller_service.state import StepState


def round_s(state: StepState, predictor: StepLatencyPredictor) -> float:
    """One round of the batch as it is, drafting included: ``T_LLM + n T_SSM``.

    Everybody in the batch goes through the same rounds, so that they differ by how many they need.
    """
    rows = float(max(state.running_rows, 1))
    drafts = state.drafts
    length = 0 if drafts is None else max(drafts.last_length, 0)
    verify_s = predictor.predict(
        rows, float(state.running_context_tokens), draft_tokens=length * rows
    )
    drafting_s = 0.0 if drafts is None else float(drafts.drafting_s(length, rows))
    return max(float(verify_s) + drafting_s, 0.0)


def remaining_s(service: Service, one_round_s: float) -> Floats:
    """``T_i = L_i (n T_SSM + T_LLM) / (n A_i + 1)``, of what is left to write, shape ``(n,)``."""
    seconds: Floats = service.remaining_tokens / service.tokens_per_round * one_round_s
    return seconds


def levels(seconds: Floats, quantum_s: float, queues: int) -> Floats:
    """The queue, from 0, of who has had or needs so much: quanta double from one to the next."""
    with np.errstate(divide="ignore"):
        found = np.ceil(np.log2(seconds / quantum_s))
    level: Floats = np.clip(found, 0.0, queues - 1.0)
    return level
