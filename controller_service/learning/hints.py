"""How far off declared lengths are: the spread of output over what a client said it would be.

Declared lengths are seldom exact. Some clients round up, some name a ceiling, some guess. So what
is learnt is the ratio of output to hint, as one survival curve over all requests with a hint. It is
Kaplan and Meier's estimator on a grid of ratios: whoever ran into its limit, was aborted or still
runs counts for what it has behind it and for nothing after. A prior that takes clients at their
word, more or less, counts as some requests of its own; where nobody got so far, it alone speaks.
"""

from __future__ import annotations

import math

import numpy as np

from controller_service.columns import Mask
from controller_service.learning.curves import LEAST_ALIVE
from controller_service.predictors.base import Floats

STEP = 1.04
"""Between neighbouring ratios of the grid."""
STEPS_EACH_WAY = 106
"""From 1/64 of the hint to 64 times it."""
RATIOS: Floats = np.concatenate(
    [[0.0], STEP ** np.arange(-STEPS_EACH_WAY, STEPS_EACH_WAY + 1, dtype=np.float64)]
)
PRIOR_REQUESTS = 20.0
"""The prior counts as much as this many requests."""
PRIOR_SPREAD = 0.2
"""Of the logarithm of the ratio: clients are right within some 20 %."""
CARELESS_SHARE, CARELESS_SPREAD = 0.05, 1.0
"""But for so many, who are right within a factor of three at best: whoever is past its hint is
probably one of them, and not about to end."""


class HintModel:
    """One survival curve of output over hint, read for many requests at once.

    Args:
        survival: share of requests that write more than each of ``RATIOS`` times their hint,
            falling from 1.
    """

    def __init__(self, survival: Floats) -> None:
        self.survival = survival
        middle = 0.5 * (survival[1:] + survival[:-1]) * np.diff(RATIOS)
        self._area = np.concatenate([[0.0], middle.cumsum()])

    def expected(self, hint: Floats, output_tokens: Floats, limit_tokens: Floats) -> Floats:
        """Mean of the tokens still to come, of requests that have written so many and may write
        ``limit_tokens`` in all. All of shape ``(n,)``, hints above 0.

        Who got further beyond its hint than anybody known is expected to write as much again.
        """
        written, most = output_tokens / hint, np.maximum(limit_tokens, output_tokens) / hint
        alive = np.interp(written, RATIOS, self.survival)
        ahead = np.interp(most, RATIOS, self._area) - np.interp(written, RATIOS, self._area)
        mean = np.where(alive > LEAST_ALIVE, ahead / np.maximum(alive, LEAST_ALIVE), written)
        found: Floats = np.minimum(hint * mean, np.maximum(limit_tokens - output_tokens, 0.0))
        return found

    def quantile(
        self, hint: Floats, output_tokens: Floats, limit_tokens: Floats, quantile: float
    ) -> Floats:
        """Likewise, tokens still to come such that this share of such requests has no more."""
        written = output_tokens / hint
        alive = np.interp(written, RATIOS, self.survival)
        total = np.interp((1.0 - quantile) * alive, self.survival[::-1], RATIOS[::-1])
        ahead = np.where(alive > LEAST_ALIVE, np.maximum(total - written, 0.0), written)
        found: Floats = np.minimum(hint * ahead, np.maximum(limit_tokens - output_tokens, 0.0))
        return found


def fit_hints(hint: Floats, output_tokens: Floats, stopped: Mask) -> HintModel:
    """
    Args:
        hint, output_tokens: of requests that have begun, both above 0, shape ``(n,)``.
        stopped: which of them said all that they had to say. The others were cut off, or run.

    Returns:
        The prior, of no requests.
    """
    ratio = np.minimum(output_tokens / hint, RATIOS[-1])
    intervals = len(RATIOS) - 1
    # A ratio of exactly RATIOS[j + 1] ends interval j, or has it behind it.
    ended_in = RATIOS.searchsorted(ratio, side="left") - 1
    behind = RATIOS.searchsorted(ratio, side="right") - 1
    reached = np.bincount(np.where(stopped, ended_in + 1, behind), minlength=intervals + 1)
    at_risk = len(ratio) - reached.cumsum()[:-1]
    ended = np.bincount(ended_in[stopped], minlength=intervals)
    ended_before = PRIOR_REQUESTS * -np.diff(_PRIOR)
    hazard = (ended + ended_before) / (at_risk + PRIOR_REQUESTS * _PRIOR[:-1])
    return HintModel(np.concatenate([[1.0], np.cumprod(1.0 - hazard)]))


def _prior() -> Floats:
    """Two logarithmic normal distributions around the hint itself."""
    with np.errstate(divide="ignore"):
        distance = np.log(RATIOS)

    def longer(spread: float) -> Floats:
        return np.array([0.5 * math.erfc(at / (spread * math.sqrt(2.0))) for at in distance])

    careful = (1.0 - CARELESS_SHARE) * longer(PRIOR_SPREAD)
    return careful + CARELESS_SHARE * longer(CARELESS_SPREAD)


_PRIOR = _prior()
