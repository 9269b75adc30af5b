"""``adaptive_candidates``: the number of candidates with the most tokens per second, from tables.

Adaptive Resource Allocation (poster)::

    maximise over c >= 0:   PerIterGenTokens(c) / PerIterExecTime(c, n)

``PerIterGenTokens`` is a table of what steps under each c have given lately; where there is none,
what the acceptance of the rows lets expect. ``PerIterExecTime`` is the controller's predictor:
with ``predictor: extra_trees`` it is the poster's own, a table built with Extremely Randomized
Trees. One number of candidates holds for every row.
"""

from __future__ import annotations

import msgspec
import numpy as np

from controller_service.policies.base import DraftPlan, Knob, PolicyKind, StepPlan
from controller_service.policies.drafting import Batch, Protection
from controller_service.policies.fixed_draft import of_length
from controller_service.predictors.base import StepLatencyPredictor
from controller_service.state import StepState


class AdaptiveCandidatesConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    protect: bool = True
    """No request that can keep its target is pushed past its pace."""


def decide(
    state: StepState,
    predictor: StepLatencyPredictor,
    config: AdaptiveCandidatesConfig,
    plan: StepPlan,
) -> DraftPlan:
    drafts = state.drafts
    if drafts is None or not predictor.fitted:
        return DraftPlan()
    batch = Batch.of(state, predictor, plan, drafts)
    if not batch.rows.size:
        return DraftPlan()
    count = len(batch.rows)
    lengths = np.array(drafts.lengths, dtype=np.float64)
    reached = drafts.survival(drafts.longest)[batch.rows].cumsum(axis=1)
    given = np.concatenate([np.ones((count, 1)), 1.0 + reached], axis=1)[:, lengths.astype(int)]
    measured = drafts.measured_tokens
    per_row = np.where(np.isnan(measured), given.mean(axis=0), measured)
    each = np.minimum(lengths, drafts.most_tokens)
    step_s = batch.step_s(each * count, lengths)
    rate = count * per_row / step_s
    rate[(each > 0) & (each * count > batch.room_tokens)] = 0.0
    protection = Protection(batch) if config.protect else None
    for which in np.argsort(-rate, kind="stable"):
        each_row = given[:, which] * (per_row[which] / given[:, which].mean())
        if (
            not lengths[which]
            or protection is None
            or protection.allows(float(step_s[which]), each_row)
        ):
            return of_length(batch, int(lengths[which]))
    return of_length(batch, int(lengths[0]))


ADAPTIVE_CANDIDATES = PolicyKind(
    "adaptive_candidates",
    decide,
    AdaptiveCandidatesConfig,
    usage="adaptive_candidates",
    summary="the draft length with the most tokens per second, from measured tables",
    knob=Knob.DRAFTS,
)
