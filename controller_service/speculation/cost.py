"""What drafting costs beside the step that verifies, learnt from steps of different lengths.

A step-latency predictor knows rows, context and tokens. Draft steps are a cost of their own: how
many there are depends on the longest draft and on nothing else of the batch, so the total of draft
tokens cannot express it. It is fitted here as one line with all others,
``T = a + b*rows + c*context + d*drafts + length*(e + f*rows) + g*[length > 0] + h*[some of the
drafts are left out]``, of which e to h are kept; the predictor is taught what remains of a step
without them. The last is for engines that verify chains: of trees it is not told how large they
are, and of what is looked up, how much was found.

What a row adds to a draft step and what its draft tokens add to the verification cannot be told
apart where all rows have all of their drafts verified; that takes steps in which some have fewer.
An engine that drafts for nothing but what it verifies would look the same. So steps are remembered
by length, batch and draft tokens: what the common ones cannot tell is not forgotten with the rare.
"""

from __future__ import annotations

import numpy as np

from controller_service.predictors.base import NO_DRAFTING, DraftingCost, StepSample
from controller_service.predictors.least_squares import PRIOR_SHAPE, PRIOR_SPREAD, robust_ridge
from controller_service.predictors.samples import RegimeBuffer

REGIMES, DEPTH = 128, 12
LEAST_SAMPLES = 16
REFIT_EVERY = 32
MODEL_SHARE, NGRAM_SHARE = 0.05, 0.002
"""A draft step over a step, fixed part and each row's, before anything is known: a head of one
layer of some thirty to sixty, with the output matrix and its own launches; looking text up."""
SHARE_SPREAD = 10.0
"""How far off that may be: models of a few layers, whose heads cost as much as they do."""
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
        self._shape = np.array([a, b, c, b, share * a, share * b, share * a, share * a])
        # Fixed part, rows and context towards the prior; a draft token towards a row, a draft step
        # towards its share of both, and the rest towards nothing.
        known, guessed = 1.0 / PRIOR_SPREAD, 1.0 / SHARE_SPREAD
        self._pulls = np.diag([known] * 4 + [guessed] * 4)
        self._pulls[3, 1], self._pulls[4, 0], self._pulls[5, 1] = -known, -guessed, -guessed
        self._wanted = np.array([known, known, known, 0.0, 0.0, 0.0, 0.0, 0.0])
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

    def refit(self) -> None:
        """Fit anew if there is enough that is new; about a millisecond."""
        if self._since_fit < (REFIT_EVERY if any(self.known) else LEAST_SAMPLES):
            return
        self._since_fit = 0
        rows, context, drafts, length, latency_s, weight = self._buffer.kept(OUTLIER)
        if len(rows) < LEAST_SAMPLES:
            return
        every = length * rows
        partial = (drafts < every) & self._tells_all
        columns = np.column_stack(
            [np.ones_like(rows), rows, context, drafts, length, every, length > 0, partial]
        )
        size = float(np.median(latency_s / (columns @ self._shape)))
        prior = size * self._shape
        old = np.maximum(weight, LEAST_WEIGHT)
        found = robust_ridge(columns * prior, latency_s, old, self._pulls, self._wanted)
        if found is not None:
            self.known = DraftingCost(*(found * prior)[4:].tolist())
