"""What drafting costs beside the step that verifies, learnt from steps of different lengths.

A step-latency predictor knows rows, context and tokens. Draft steps are a cost of their own: how
many there are depends on the longest draft and on nothing else of the batch, so the total of draft
tokens cannot express it. It is fitted here as one line with all others,
``T = a + b*rows + c*context + d*drafts + length*(e + f*rows)``, of which e and f are kept; the
predictor is taught what remains of a step without them.

An engine that looks drafts up has next to nothing of it: its length is how many tokens are verified
for each row. Where all rows share one length, ``d*drafts`` and ``f*length*rows`` cannot be told
apart, and the prior leaves nearly all of it with d, which is the predictor's.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from controller_service.speculation.drafting import Floats

DEPTH = 32
"""Samples kept of each draft length, so that a common one cannot push a rare one out."""
LEAST_SAMPLES = 16
REFIT_EVERY = 32
PRIOR = np.array([1.0, 4e-3, 4e-6, 4e-3])
"""a : b : c : d, as :data:`~controller_service.predictors.least_squares.PRIOR_SHAPE`; a draft token
that is verified costs as much as a row."""
MODEL_SHARE, NGRAM_SHARE = 0.05, 0.002
"""e : a before anything is known: a head of one layer of some thirty to sixty, with the output
matrix and its own launches; looking text up."""
ROW_SHARE = 1e-4
"""f : a, likewise."""
PULL = np.array([0.01, 0.01, 0.01, 0.01, 0.05, 0.05])
"""Weight of the prior, against relative errors. More for e and f: while all steps have one length,
they cannot be told from a and b, and would keep every other length from being tried."""
OUTLIER = 2.5


class DraftCost:
    """Learns from decode steps; :attr:`step_s` and :attr:`row_step_s` are what is known."""

    def __init__(self, lengths: tuple[int, ...], is_model: bool) -> None:
        self._slots = {length: slot for slot, length in enumerate(lengths)}
        self._values = np.zeros((5, len(lengths), DEPTH))
        self._counts = np.zeros(len(lengths), dtype=np.int64)
        share = MODEL_SHARE if is_model else NGRAM_SHARE
        self._prior = np.array([*PRIOR, share, ROW_SHARE * share])
        self._since_fit = 0
        self.step_s = 0.0
        self.row_step_s = 0.0

    def observe(
        self, rows: int, context_tokens: int, draft_tokens: int, length: int, latency_s: float
    ) -> None:
        """A decode step without prefill has finished."""
        slot = self._slots.get(length)
        if slot is None or not rows or not latency_s > 0:
            return
        place = int(self._counts[slot]) % DEPTH
        self._values[:, slot, place] = (rows, context_tokens, draft_tokens, length, latency_s)
        self._counts[slot] += 1
        self._since_fit += 1

    def refit(self) -> None:
        """Fit anew if there is enough that is new; a fraction of a millisecond."""
        held = np.minimum(self._counts, DEPTH)
        first = not self.step_s
        if self._since_fit < (LEAST_SAMPLES if first else REFIT_EVERY):
            return
        self._since_fit = 0
        present = np.arange(DEPTH) < held[:, None]
        rows, context, drafts, length, latency = self._values[:, present]
        columns = np.column_stack(
            [np.ones_like(rows), rows, context, drafts, length, length * rows]
        )
        shape = columns @ self._prior
        size = float(np.median(latency / shape))
        units = columns * (size * self._prior)
        usual = np.abs(np.log(latency / (size * shape))) < np.log(OUTLIER)
        units, latency = units[usual], latency[usual]
        if len(latency) < LEAST_SAMPLES:
            return
        rel = units / latency[:, None]
        pull = np.diag(PULL * np.sqrt(len(latency)))
        try:
            scale, _ = nnls(
                np.vstack([rel, pull]),
                np.concatenate([np.ones(len(latency)), pull.sum(axis=1)]),
            )
        except RuntimeError:  # too many iterations: what was known stays
            return
        known: Floats = scale * size * self._prior
        self.step_s, self.row_step_s = float(known[4]), float(known[5])

    def drafting_s(self, length: int, rows: int) -> float:
        """What ``length`` draft steps of ``rows`` rows take."""
        return length * (self.step_s + self.row_step_s * rows)
