"""Orders of service that exist to be compared with. Not for serving.

``lof``     SGLang's own: whoever names the highest limit first
``srpt``    shortest remaining processing time first, by what really remains
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Any

import msgspec
import numpy as np
from governor_workloads.spec import Workload, WorkRequest

from controller_service.policies.base import (
    Knob,
    NoConfig,
    OrderPlan,
    Part,
    Policy,
    PolicyKind,
    StepPlan,
)
from controller_service.policies.eager import EAGER
from controller_service.policies.laps_sd import LapsSdConfig
from controller_service.policies.laps_sd import decide as decide_laps_sd
from controller_service.policies.ordering import NAMED, line_up
from controller_service.policies.registry import parse_policy
from controller_service.predictors.base import Floats, StepLatencyPredictor
from controller_service.service.state import Service
from controller_service.state import StepState
from governor_bench.eval.laps_sd.setting import DRAFT_TOKENS, Setting

LOF, SRPT = "lof", "srpt"
SRPT_CONFIG = LapsSdConfig(
    late_share=0.0,
    patience_s=1e6,
    caution=0.0,
    margin=1.0,
    protect=False,
    most_retractions=1000,
)
"""Settings of a policy that knows what comes: it needs no guard against starvation, and no margin
for what it does not know. It knows no target."""


def policy_of(setting: Setting, workload: Workload) -> Policy:
    """The policy of ``setting``. Each call gives a fresh one.

    Raises:
        ValueError: there is none of that name.
    """
    if setting.policy == LOF:
        return _policy(LOF, decide_lof)
    if setting.policy == SRPT:
        return _policy(SRPT, Srpt(workload, setting.speculates).decide)
    return parse_policy(setting.policy)


def _policy(name: str, decide: Any) -> Policy:
    kind = PolicyKind(name, decide, knob=Knob.ORDER)
    return Policy((Part(kind, NoConfig()), Part(EAGER, NoConfig())), name)


def decide_lof(
    state: StepState, predictor: StepLatencyPredictor, config: NoConfig, plan: StepPlan
) -> OrderPlan:
    """SGLang's ``lof``: the highest limit first, then who came first."""
    queue = state.prefill
    if queue is None or not queue.waiting:
        return OrderPlan()
    limit = -queue.max_new_tokens.astype(np.float64)
    return OrderPlan(
        line_up(state, queue, [limit], np.zeros(queue.waiting, dtype=np.bool_))[:NAMED]
    )


class Srpt:
    """``laps_sd``'s rules with nothing to guess: it is given the rounds that each request will
    still take. When requests will come it does not know either, so that it is no bound in the sense
    of a proof.

    It knows a request by prompt and length; of those alike in both, whoever comes first is taken
    for the first of the workload. Use it on an engine whose requests declare their length.
    """

    def __init__(self, workload: Workload, speculates: bool) -> None:
        self._workload, self._speculates = workload, speculates
        self._unmet: dict[tuple[int, int], deque[WorkRequest]] = defaultdict(deque)
        for request in workload.requests:
            self._unmet[request.prompt_tokens, request.output_tokens].append(request)
        self._rounds: dict[int, Floats] = {}

    def decide(
        self, state: StepState, predictor: StepLatencyPredictor, config: NoConfig, plan: StepPlan
    ) -> OrderPlan:
        service, queue = state.service, state.prefill
        if service is None or queue is None or not queue.waiting:
            return OrderPlan()
        prompts = state.context_tokens - state.output_tokens
        known = msgspec.structs.replace(
            service,
            queue=self._true(service.queue, queue, queue.prompt_tokens),
            rows=self._true(service.rows, state, prompts),
        )
        state = msgspec.structs.replace(state, service=known)
        return decide_laps_sd(state, predictor, SRPT_CONFIG, plan)

    def _true(self, service: Service, told: Any, prompts: Any) -> Service:
        """``service`` with the rounds that really remain, each of which gives one token."""
        found = [
            self._remaining(*facts)
            for facts in zip(
                told.request_id.tolist(),
                prompts.tolist(),
                told.max_new_tokens.tolist(),
                told.output_tokens.tolist(),
                strict=True,
            )
        ]
        remaining: Floats = np.array(found, dtype=np.float64)
        return msgspec.structs.replace(
            service,
            remaining_tokens=remaining,
            tokens_per_round=np.ones(len(found)),
            spread=np.zeros(len(found)),
            tokens_at=lambda _: remaining,
        )

    def _remaining(self, request_id: int, prompt: int, limit: int, output: int) -> float:
        rounds = self._rounds.get(request_id)
        if rounds is None:
            alike = self._unmet.get((prompt, limit))
            if not alike:
                return float(max(limit - output, 1))
            rounds = self._rounds[request_id] = self._rounds_of(alike.popleft())
        return float(rounds[min(output, len(rounds) - 1)])

    def _rounds_of(self, request: WorkRequest) -> Floats:
        """Rounds to the end, by tokens written so far; shape ``(output_tokens + 1,)``."""
        tokens, acceptance = request.output_tokens, self._workload.acceptance
        if not self._speculates or acceptance is None:
            return np.arange(tokens, -1, -1, dtype=np.float64)
        luck = acceptance.luck(self._workload.seed, request.index, 0, tokens + 1)
        return rounds_to_the_end(luck.choice.tolist(), tokens)


def rounds_to_the_end(choice: list[int], tokens: int) -> Floats:
    """Rounds that an output of ``tokens`` takes from each position on, of chains of
    ``DRAFT_TOKENS``.

    Args:
        choice: which of the draft's choices is right at each position; 1: its first.
    """
    rounds = np.zeros(tokens + 1)
    right = 0
    for at in range(tokens - 1, -1, -1):
        # How many in a row are right from here on, for the draft of a round that begins here.
        right = right + 1 if choice[at] == 1 else 0
        # Prefill brings the first token, and nothing is drafted with it.
        given = 1 + (min(right, DRAFT_TOKENS) if at else 0)
        rounds[at] = 1.0 + rounds[min(at + given, tokens)]
    return rounds
