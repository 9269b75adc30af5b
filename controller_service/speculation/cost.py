"""What drafting costs beside the step that verifies, learnt from steps of different lengths.

A step-latency predictor knows rows, context and tokens. Draft steps are a cost of their own: how
many there are depends on the longest draft and on nothing else of the batch, so the total of draft
tokens cannot express it. It is fitted here as one line with all others,

    T = a + b*rows + c*context + s*V(drafts) + length*(e + f*rows) + g*[length > 0]
          + h*[some of the drafts are left out],

where V is what the predictor takes the verification of draft tokens to cost: to most, a draft token
is one more row, but a row also costs the host some time, and how much differs. What s says beyond
V, and e to h, are kept, and the predictor is taught what remains of a step without them. The last
is for engines that verify chains: of trees it is not told how large they are, and of what is looked
up, how much was found.

What a row adds to a draft step and what its draft tokens add to the verification cannot be told
apart where all rows have all of their drafts verified; that takes steps in which some have fewer.
So steps are remembered by length, batch and draft tokens: what the common ones cannot tell is not
forgotten with the rare. Only steps of the engine at hand are: those that a predictor was trained on
may be of another loop, and none of them drafted.
"""

from __future__ import annotations

import math

import numpy as np

from controller_service.predictors.base import (
    NO_DRAFTING,
    DraftingCost,
    StepLatencyPredictor,
    StepSample,
)
from controller_service.predictors.least_squares import PRIOR_SHAPE, PRIOR_SPREAD, robust_ridge
from controller_service.predictors.samples import RegimeBuffer

REGIMES, DEPTH = 128, 12
LEAST_SAMPLES = 16
REFIT_EVERY = 32
MODEL_SHARE, NGRAM_SHARE = 0.05, 0.002
"""A draft step over a step, fixed part and each row's, before anything is known: a head of one
layer of some thirty to sixty, with the output matrix and its own launches; looking text up."""
ROW_SHARE_SPREAD = 30.0
"""How far off a row's part of it may be: rows of small models cost more than their matrices, and
their heads as much as they do."""
LEAST_WHOLE = 12
"""Steps whose drafts were all verified, before others are compared with them."""
OUTLIER = 2.5
LEAST_WEIGHT = 0.3
"""Of the oldest steps: how draft steps compare with others is the machine's, whatever the load."""


class DraftCost:
    """Learns from decode steps; :attr:`known` is what they have told."""

    def __init__(self, lengths: tuple[int, ...], is_model: bool, *, is_chain: bool = True) -> None:
        self._lengths = frozenset(lengths)
        self._tells_all = is_model and is_chain
        self._buffer = RegimeBuffer(REGIMES, DEPTH)
        share = MODEL_SHARE if is_model else NGRAM_SHARE
        a, b, c = PRIOR_SHAPE
        self._shape = np.array([a, b, c, share * a, share * b, share * a, share * a])
        # Fixed part, rows and context towards the prior, a verification towards what the predictor
        # says, a draft step towards its share of a step, and the rest towards nothing.
        known, guessed = 1.0 / PRIOR_SPREAD, 1.0 / ROW_SHARE_SPREAD
        self._pulls = np.diag([known] * 5 + [guessed] + [known] * 2)
        self._pulls[4, 0], self._pulls[5, 1] = -known, -guessed
        self._wanted = np.array([known, known, known, known, 0.0, 0.0, 0.0, 0.0])
        self._since_fit = 0
        self.known = NO_DRAFTING

    def observe(
        self, rows: int, context_tokens: int, draft_tokens: int, length: int, latency_s: float
    ) -> None:
        """A decode step without prefill has finished."""
        if length not in self._lengths or not rows or not latency_s > 0:
            return
        self._buffer.add(StepSample(rows, context_tokens, 0, latency_s, draft_tokens, length))
        self._since_fit += 1

    def refit(self, predictor: StepLatencyPredictor) -> None:
        """Fit anew if there is enough that is new; about a millisecond."""
        wanted = REFIT_EVERY if any(self.known) else LEAST_SAMPLES
        if self._since_fit < wanted or not predictor.fitted:
            return
        self._since_fit = 0
        rows, context, drafts, length, whole_s, weight = self._buffer.kept(OUTLIER)
        if len(rows) < LEAST_SAMPLES:
            return
        charged_s = predictor.predict(rows, context, 0.0, drafts) - predictor.predict(rows, context)
        every = length * rows
        partial = (drafts < every) & self._tells_all
        if np.count_nonzero((drafts >= every) & (length > 0)) < LEAST_WHOLE:
            partial[:] = False  # there is nothing to compare with
        columns = np.column_stack(
            [np.ones_like(rows), rows, context, length, every, length > 0, partial]
        )
        size = float(np.median((whole_s - charged_s) / (columns @ self._shape)))
        if not (0.0 < size < math.inf and np.isfinite(charged_s).all()):
            return  # the predictor is far off, and will not be for long
        prior = size * self._shape
        units = np.insert(columns * prior, 3, charged_s, axis=1)
        old = np.maximum(weight, LEAST_WEIGHT)
        found = robust_ridge(units, whole_s, old, self._pulls, self._wanted)
        if found is None:
            return
        each_s = float(charged_s.sum() / max(float(drafts.sum()), 1.0))
        step_s, row_step_s, start_s, partial_s = (found[4:] * prior[3:]).tolist()
        token_s = (float(found[3]) - 1.0) * each_s
        self.known = DraftingCost(step_s, row_step_s, start_s, partial_s, token_s)
