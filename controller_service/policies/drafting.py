"""What policies about drafts have in common: the price of drafts, and whom they must not hurt."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from governor_protos.limits import MAX_DURATION_S

from controller_service.columns import Mask
from controller_service.groups import Index
from controller_service.paces import LOST_S, Requests, banked_s, pace_limits_s, requests_of
from controller_service.policies.base import StepPlan
from controller_service.predictors.base import Floats, StepLatencyPredictor
from controller_service.speculation.drafting import DraftState
from controller_service.state import StepState

MARGIN = 0.03
"""Share of a target that is kept back."""
MOST_INTERRUPTED = 0.98
RECOVERY_TOKENS = 24.0
LEAST_REMAINING = 32.0
"""As for ``taper_plus``."""
ROUNDING = 1e-9


class Batch(msgspec.Struct, frozen=True, eq=False):
    """The rows that advance, and what the step costs with and without drafts."""

    state: StepState
    predictor: StepLatencyPredictor
    drafts: DraftState
    rows: Index
    """Indices of the rows that advance."""
    context_tokens: float
    room_tokens: float
    """Draft tokens that KV memory has room for."""
    plain_s: float
    """Predicted step without drafts."""
    between_s: float
    """Time of prefill after a step that does not grow with its length: a longer step is followed by
    fewer of them in all. Where requests come so often that one follows every step, that is what
    any step of prefill takes."""

    @classmethod
    def of(
        cls,
        state: StepState,
        predictor: StepLatencyPredictor,
        plan: StepPlan,
        drafts: DraftState,
    ) -> Batch:
        rows = np.flatnonzero(state.running & ~(plan.park & state.parkable))
        context = float(np.add.reduce(state.context_tokens[rows], dtype=np.int64))
        # Requests that come at random, at a rate r, find a step of length T with chance
        # p = 1 - exp(-r T). Of p, r T exp(-r T) goes with its length.
        spared = 1.0 - min(drafts.interrupted, MOST_INTERRUPTED)
        share = 1.0 - spared + spared * math.log(spared)
        return cls(
            state,
            predictor,
            drafts,
            rows,
            context,
            float(state.kv_total_tokens - state.kv_used_tokens - len(rows)),
            float(predictor.predict(float(len(rows)), context)),
            share * float(predictor.predict(1.0, 0.0)) if share > 0.0 else 0.0,
        )

    def step_s(self, draft_tokens: Floats, length: Floats) -> Floats:
        """Predicted time of the step with these drafts, shape of the arguments.

        Changing the length costs once; a length that is changed every step would not pay.
        """
        count = float(len(self.rows))
        verify_s = self.predictor.predict(
            np.full(len(draft_tokens), count),
            np.full(len(draft_tokens), self.context_tokens),
            0.0,
            draft_tokens,
        )
        step_s = verify_s + self.drafts.drafting_s(length, count, draft_tokens)
        # A correction of what verifying costs may be older than the predictor that it corrects.
        seconds: Floats = np.maximum(step_s, self.plain_s)
        return seconds

    def favoured(self, rate: Floats, step_s: Floats, length: Floats, keep: float) -> Floats:
        """``rate`` with what a switch takes, and ``keep`` more for the newest length."""
        last = self.drafts.last_length
        switched_s = (length != last) * self.drafts.switch_s
        favoured: Floats = rate * (step_s / (step_s + switched_s))
        favoured *= np.where(length == last, 1.0 + keep, 1.0)
        return favoured


class Protection:
    """Requests that drafts may not push past their pace: those with a target that they can keep.

    A step with drafts is longer and gives a request more tokens. What must stay within its pace
    limit is the time per token; where that would be exceeded without drafts already, drafts may not
    make it any longer.
    """

    def __init__(self, batch: Batch) -> None:
        state = batch.state
        self._share_s = state.prefill_per_token_s
        self._requests = requests_of(state, batch.rows[:0])
        advancing = np.zeros(state.rows)
        advancing[batch.rows] = 1.0
        plain_wait_s = batch.plain_s + self._share_s * len(batch.rows)
        own_rows = self._sum(advancing)
        limits = _limits(self._requests, plain_wait_s)
        self._binds = (
            (limits > LOST_S) & (self._requests.target_s < MAX_DURATION_S) & (own_rows > 0)
        )
        self._is_anybody = bool(self._binds.any())
        alone_s = plain_wait_s / np.maximum(own_rows, 1.0)
        self._longest_s = np.maximum(limits, alone_s) * (1.0 + ROUNDING)
        self._state_rows = state.rows
        self._rows = batch.rows

    @property
    def binds(self) -> bool:
        """Whether there is anybody to protect."""
        return self._is_anybody

    def allows(self, step_s: float, tokens: Floats) -> bool:
        """
        Args:
            tokens: what each row that advances is expected to be given, its own token included.
        """
        return bool(self.allowed(np.array([step_s]), tokens[None, :])[0])

    def allowed(self, step_s: Floats, tokens: Floats) -> Mask:
        """Which of several steps are, shape ``(steps,)``.

        Args:
            step_s: their predicted times, shape ``(steps,)``.
            tokens: as for :meth:`allows`, shape ``(steps, rows that advance)``.
        """
        if not self.binds:
            return np.ones(len(step_s), dtype=np.bool_)
        every = np.zeros((len(step_s), self._state_rows))
        every[:, self._rows] = tokens
        wait_s = step_s + self._share_s * tokens.sum(axis=1)
        given = self._sum(every)
        kept: Mask = wait_s[:, None] <= self._longest_s * given
        allowed: Mask = np.logical_and.reduce(kept | ~self._binds, axis=1)
        return allowed

    def _sum(self, by_row: Floats) -> Floats:
        """By request, along the last axis."""
        requests = self._requests
        if not requests.starts.size:
            return np.zeros((*by_row.shape[:-1], 0))
        summed: Floats = np.add.reduceat(by_row[..., requests.by_request], requests.starts, axis=-1)
        return summed


def _limits(requests: Requests, fastest_s: float) -> Floats:
    if not requests.starts.size:
        return np.zeros(0)
    # NOTE: what has no target is multiplied by tokens and must stay finite.
    return pace_limits_s(
        requests,
        banked_s(requests, MARGIN),
        np.maximum(requests.tokens, LEAST_REMAINING),
        RECOVERY_TOKENS,
        MARGIN,
        fastest_s / np.maximum(requests.rows, 1.0),
    )
