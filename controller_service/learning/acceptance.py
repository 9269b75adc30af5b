"""How likely a request's draft tokens are to be accepted: a beta prior, and what it has shown."""

from __future__ import annotations

import numpy as np

from controller_service.learning.arrays import floats, pack, unpack
from controller_service.learning.ends import EndColumns

LEAST_REQUESTS = 10
"""Fewer requests with draft tokens make no prior."""
LEAST_STRENGTH, MOST_STRENGTH = 0.5, 1e4
"""Draft tokens that the prior is worth."""
EDGE = 1e-3
"""A prior mean of exactly 0 or 1 could never be moved."""


class AcceptanceModel:
    """Beta-binomial: requests differ in how often their drafts are right."""

    def __init__(self, alpha: float, beta: float) -> None:
        """
        Raises:
            ValueError: one of them is not above 0.
        """
        if not (alpha > 0 and beta > 0 and np.isfinite(alpha + beta)):
            raise ValueError(f"a beta prior needs two positive numbers, not {alpha} and {beta}")
        self.alpha, self.beta = alpha, beta

    def mean(self, accepted: float = 0.0, proposed: float = 0.0) -> float:
        """Expected share of a request's next draft tokens that are accepted, given those so far."""
        return (self.alpha + accepted) / (self.alpha + self.beta + proposed)

    def to_bytes(self) -> bytes:
        return pack({"prior": np.array([self.alpha, self.beta])})

    @classmethod
    def from_bytes(cls, data: bytes) -> AcceptanceModel:
        """
        Raises:
            ValueError: these are no acceptance model.
        """
        prior = floats(unpack(data, "acceptance.npz"), "prior", 1)
        if len(prior) != 2:
            raise ValueError(f"expected 2 values of a beta prior, found {len(prior)}")
        return cls(float(prior[0]), float(prior[1]))


def fit_acceptance(ends: EndColumns) -> AcceptanceModel | None:
    """A prior by moments: its mean is the share of all tokens, its strength what is left of the
    spread between requests once their finite numbers are taken off (the ANOVA estimator of the
    intraclass correlation).

    Returns:
        None when fewer than ``LEAST_REQUESTS`` requests had draft tokens.
    """
    with_drafts = ends.draft_tokens > 0
    proposed = ends.draft_tokens[with_drafts].astype(np.float64)
    accepted = np.clip(ends.accepted_tokens[with_drafts].astype(np.float64), 0.0, proposed)
    count, total = len(proposed), float(proposed.sum())
    if count < LEAST_REQUESTS:
        return None
    mean = float(np.clip(accepted.sum() / total, EDGE, 1.0 - EDGE))
    between = float((proposed * (accepted / proposed - mean) ** 2).sum()) / (count - 1)
    within = float((accepted * (1.0 - accepted / proposed)).sum()) / max(total - count, 1.0)
    typical = (total - float((proposed**2).sum()) / total) / (count - 1)
    alike = (between - within) / max(between + (typical - 1.0) * within, 1e-12)
    strength = (1.0 - alike) / alike if alike > 0 else MOST_STRENGTH
    strength = min(max(strength, LEAST_STRENGTH), MOST_STRENGTH)
    return AcceptanceModel(mean * strength, (1.0 - mean) * strength)
