"""The slack ledger: what each request was promised, what it has had, and what it can spare.

Pure functions of a :class:`~controller_service.state.StepState`. Deadlines are seconds from the
moment of the snapshot; a negative one has passed.
"""

from __future__ import annotations

import numpy as np
from governor_protos.limits import MAX_DURATION_S

from controller_service.columns import F4
from controller_service.state import StepState


def last_token_deadlines(state: StepState) -> F4:
    """When each row's next token is due, by the published rule (TAPER, arXiv 2605.06914).

    A row owes a token one TPOT target after its last one. A deferred row's deadline restarts on
    its return, so it is due one whole target from now. This rule cannot bank slack: a row that ran
    ahead of its target owes its next token no later for it.

    Returns:
        Shape ``(rows,)``, seconds from the snapshot.
    """
    # Before the first token `since_last_token_s` is negative: nothing has been waited for yet.
    waited = np.maximum(state.since_last_token_s, 0)
    waited *= ~state.deferred
    deadlines: F4 = state.tpot_slo_s - waited
    return deadlines


def tightest_slack_s(state: StepState, deadlines: F4) -> float:
    """Time until the first deadline among the rows that were not deferred (TAPER's slack).

    Returns:
        Seconds, within +-``MAX_DURATION_S``; ``MAX_DURATION_S`` when no row binds.
    """
    binding = deadlines[state.running & ~state.deferred]
    if not binding.size:
        return MAX_DURATION_S
    # NOTE: fmin and the order of these comparisons drop a NaN that a peer put into a column.
    slack = float(np.fmin.reduce(binding))
    if slack <= MAX_DURATION_S:
        return max(slack, -MAX_DURATION_S)
    return MAX_DURATION_S
