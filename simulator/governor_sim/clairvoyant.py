"""The clairvoyant bound: the best that is known to be possible with perfect knowledge.

``taper_plus``'s rule with nothing to guess: it is given the profile's own step time and what every
request has still to produce, so it spends banked time to the last token, knows who is lost, and
keeps half the margin. When requests will come, and the prefill that they bring, it does not know
either. Not a bound in the sense of a proof: the best policy that could be written down with
knowledge that no controller has.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from governor_profiles import StepProfile

from controller_service.groups import base_set
from controller_service.ledger import last_token_deadlines
from controller_service.paces import banked_s, pace_limits_s, requests_of
from controller_service.policies.base import Part, Policy, PolicyKind, StepPlan
from controller_service.policies.taper_plus import TaperPlusConfig, choose
from controller_service.predictors.base import StepLatencyPredictor, StepSample, V
from controller_service.state import StepState

NAME = "clairvoyant"
CONFIG = TaperPlusConfig(floor=0.0, margin=0.01, recovery_tokens=64.0)
MOST_ALONG = 2.0
"""Tokens that may count along with one; without a bound, a request one token before its end and
a moment late would stop everybody else."""


P90_SD = 1.2815515655446004
"""Standard deviations above the mean that nine draws in ten of a normal law stay below."""


class TruePredictor:
    """A profile as a predictor: knows, and learns nothing.

    Args:
        profile: of any shape; a straight one is the quickest.
        noise: relative standard deviation of the engine's steps.
    """

    name = "true"
    fitted = True
    version = 0

    def __init__(self, profile: StepProfile, noise: float = 0.0) -> None:
        self._profile = profile
        self._p90_factor = 1.0 + P90_SD * noise
        self._is_straight = profile.grid is None and profile.bends is None
        self._each = np.vectorize(profile.step_s, otypes=[np.float64])

    def predict(
        self,
        rows: V,
        context_tokens: V,
        prefill_tokens: float | V = 0.0,
        draft_tokens: float | V = 0.0,
    ) -> V:
        profile = self._profile
        if self._is_straight:
            fixed = (
                profile.fixed_s
                + profile.prefill_token_s * prefill_tokens
                + profile.draft_token_s * draft_tokens
            )
            return fixed + profile.row_s * rows + profile.context_token_s * context_tokens
        values: V = self._each(rows, context_tokens, prefill_tokens, draft_tokens)[()]
        return values

    def predict_p90(
        self,
        rows: V,
        context_tokens: V,
        prefill_tokens: float | V = 0.0,
        draft_tokens: float | V = 0.0,
    ) -> V:
        return self._p90_factor * self.predict(rows, context_tokens, prefill_tokens, draft_tokens)

    def observe(self, sample: StepSample) -> None:
        """There is nothing to learn."""

    def refit_due(self, now_s: float) -> bool:
        return False

    def refit(self, now_s: float) -> None:
        """There is nothing to learn."""

    def coefficients(self) -> Mapping[str, float]:
        return {}


def decide(state: StepState, predictor: StepLatencyPredictor, config: TaperPlusConfig) -> StepPlan:
    base = base_set(state, last_token_deadlines(state))
    requests = requests_of(state, base.extras)
    remaining = np.maximum(requests.remaining_tokens, 1.0)
    worth = 1.0 + np.minimum(requests.tokens / remaining, MOST_ALONG)
    shortest_s = predictor.predict(float(base.rows), float(base.context_tokens))
    limits = pace_limits_s(
        requests,
        banked_s(requests, config.margin),
        remaining,
        config.recovery_tokens,
        config.margin,
        fastest_s=(shortest_s + state.prefill_per_token_s * base.rows) / requests.rows,
    )
    return choose(state, predictor, base, requests, limits, worth, config)


def clairvoyant() -> Policy:
    """The bound as a policy. Use it with :class:`TruePredictor`."""
    kind = PolicyKind(NAME, decide, TaperPlusConfig)
    return Policy((Part(kind, CONFIG),), NAME)
