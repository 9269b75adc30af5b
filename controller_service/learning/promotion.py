"""Whether a candidate may replace the model that predicts now. Pure."""

from __future__ import annotations

import msgspec

from controller_service.learning.evaluate import Evaluation, RegimeError

LEAST_SAMPLES = 8
"""A regime with fewer held-out steps has no say: its error is chance."""
LEAST_SHARE = 0.005
"""Neither has one that holds a smaller share of the held-out steps."""
LEAST_GAIN = 0.01
"""Relative gain in the mean error over all regimes that a swap has to be worth."""
NOISE_ERRORS = 1.0
"""Standard errors of the difference by which a candidate may be worse in one regime."""
NOISE_FLOOR = 0.001
"""And this much, whatever the standard error claims."""


class RegimeVerdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Both errors in one regime."""

    key: int
    name: str
    samples: int
    candidate_mape: float
    incumbent_mape: float
    allowed_mape: float
    """The candidate's error may be this large."""

    @property
    def worse(self) -> bool:
        return self.candidate_mape > self.allowed_mape


class Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether to promote, why, and the regimes that mattered."""

    promote: bool
    reason: str
    by_regime: tuple[RegimeVerdict, ...]


def judge(
    candidate: Evaluation,
    incumbent: Evaluation,
    *,
    least_samples: int = LEAST_SAMPLES,
    least_share: float = LEAST_SHARE,
) -> Verdict:
    """Better over all, and in no regime that matters worse beyond noise.

    Over all is the mean over the regimes that matter, each counted once: an engine that stays in
    one regime must not let that one decide alone.

    Args:
        candidate, incumbent: of the same held-out samples.
        least_samples, least_share: what makes a regime matter.

    Raises:
        ValueError: they were not evaluated on the same samples.
    """
    pairs = _paired(candidate, incumbent)
    least = max(least_samples, least_share * candidate.samples)
    regimes = tuple(_regime(one, other) for one, other in pairs if one.samples >= least)
    if not regimes:
        reason = f"no regime has the {least:.0f} held-out steps that it takes to compare"
        return Verdict(False, reason, ())
    worse = [one for one in regimes if one.worse]
    if worse:
        worst = max(worse, key=lambda one: one.candidate_mape - one.allowed_mape)
        reason = (
            f"worse in {len(worse)} of {len(regimes)} regimes, most in {worst.name}: "
            f"off by {worst.candidate_mape:.2%}, {worst.incumbent_mape:.2%} now"
        )
        return Verdict(False, reason, regimes)
    now = sum(one.incumbent_mape for one in regimes) / len(regimes)
    then = sum(one.candidate_mape for one in regimes) / len(regimes)
    if then > (1.0 - LEAST_GAIN) * now:
        return Verdict(False, f"no better: off by {then:.2%}, {now:.2%} now", regimes)
    reason = f"off by {then:.2%} instead of {now:.2%} over {len(regimes)} regimes, worse in none"
    return Verdict(True, reason, regimes)


def _paired(candidate: Evaluation, incumbent: Evaluation) -> list[tuple[RegimeError, RegimeError]]:
    theirs = {one.key: one for one in incumbent.by_regime}
    same = {one.key: one.samples for one in candidate.by_regime} == {
        key: one.samples for key, one in theirs.items()
    }
    if not same:
        raise ValueError("candidate and incumbent must be evaluated on the same samples")
    return [(one, theirs[one.key]) for one in candidate.by_regime]


def _regime(candidate: RegimeError, incumbent: RegimeError) -> RegimeVerdict:
    spread = (candidate.mape_error**2 + incumbent.mape_error**2) ** 0.5
    allowed = incumbent.mape + max(NOISE_ERRORS * spread, NOISE_FLOOR)
    return RegimeVerdict(
        candidate.key, candidate.name, candidate.samples, candidate.mape, incumbent.mape, allowed
    )
