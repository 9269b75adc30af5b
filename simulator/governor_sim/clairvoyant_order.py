"""The oracle of order: shortest remaining time first, with the true lengths.

``laps_sd``'s rules, given what every request will write instead of a prediction, and no reserve for
errors. The simulated engine must name that to the controller (``SimConfig.max_new_tokens`` of 0).
When requests will come it does not know, so it is no bound in the sense of a proof.
"""

from __future__ import annotations

import msgspec
import numpy as np

from controller_service.policies.base import Knob, NoConfig, OrderPlan, Part, Policy, PolicyKind
from controller_service.policies.base import StepPlan as Plan
from controller_service.policies.eager import EAGER
from controller_service.policies.laps_sd import LapsSdConfig
from controller_service.policies.laps_sd import decide as decide_laps_sd
from controller_service.predictors.base import Floats, StepLatencyPredictor
from controller_service.state import StepState

NAME = "oracle_srpt"
CONFIG = LapsSdConfig(queues=1, margin=1.0, patience_s=1e6, most_retractions=1000)


def decide(
    state: StepState, predictor: StepLatencyPredictor, config: LapsSdConfig, plan: Plan
) -> OrderPlan:
    service, queue = state.service, state.prefill
    if service is None or queue is None:
        return OrderPlan()
    known = msgspec.structs.replace(
        service,
        queue=msgspec.structs.replace(
            service.queue, remaining_tokens=_left(queue.max_new_tokens, queue.output_tokens)
        ),
        rows=msgspec.structs.replace(
            service.rows, remaining_tokens=_left(state.max_new_tokens, state.output_tokens)
        ),
    )
    return decide_laps_sd(msgspec.structs.replace(state, service=known), predictor, config, plan)


def oracle_srpt(config: LapsSdConfig = CONFIG) -> Policy:
    """The oracle as a policy."""
    kind = PolicyKind(NAME, decide, LapsSdConfig, knob=Knob.ORDER)
    return Policy((Part(kind, config), Part(EAGER, NoConfig())), NAME)


def _left(limit: np.typing.NDArray[np.int32], output: np.typing.NDArray[np.int32]) -> Floats:
    left: Floats = np.maximum(limit.astype(np.float64) - output, 1.0)
    return left
