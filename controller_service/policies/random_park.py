"""``random:P[:SEED]``: park each parkable row with probability P. For checks, not for serving.

The coin is a hash of (seed, step, request id), so the policy stays a pure function: the same
snapshot gives the same plan in any process and on any replay.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from controller_service.columns import U4
from controller_service.groups import base_set
from controller_service.ledger import last_token_deadlines, tightest_slack_s
from controller_service.policies.base import PolicyKind, StepPlan
from controller_service.policies.plans import park_rows
from controller_service.predictors.base import StepLatencyPredictor
from controller_service.state import StepState

_WORD = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


class RandomConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    probability: Annotated[float, Meta(ge=0, le=1)]
    """Chance that an extra branch sits a step out."""
    seed: Annotated[int, Meta(ge=0, le=(1 << 32) - 1)] = 0
    """Equal seeds park equal rows."""


def decide(state: StepState, predictor: StepLatencyPredictor, config: RandomConfig) -> StepPlan:
    deadlines = last_token_deadlines(state)
    base = base_set(state, deadlines)
    candidates = state.parkable.nonzero()[0]
    coins = _coins(config.seed, state.for_step, state.request_id[candidates])
    parked = candidates[coins < config.probability]
    return park_rows(state, predictor, parked, base, tightest_slack_s(state, deadlines))


def _coins(seed: int, step: int, request_id: U4) -> npt.NDArray[np.float64]:
    """Uniform in [0, 1), by splitmix64's finaliser; shape of ``request_id``."""
    stream = (seed * 0xD1342543DE82EF95 + step * _GOLDEN) & _WORD
    word = request_id.astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(stream)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    word ^= word >> np.uint64(31)
    coins: npt.NDArray[np.float64] = (word >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return coins


RANDOM = PolicyKind(
    "random",
    decide,
    RandomConfig,
    usage="random:0.5",
    summary="parks each extra branch with a probability; for checks",
)
