"""How far ``laps_sd``'s predictions of remaining time are off once a request is perceptible."""

from __future__ import annotations

from statistics import median
from typing import Any, NamedTuple

import msgspec
import numpy as np

from controller_service.policies.base import Knob, OrderPlan, Part, Policy, StepPlan
from controller_service.predictors.base import StepLatencyPredictor
from controller_service.service.times import remaining_s, round_s
from controller_service.state import StepState
from governor_bench.eval.laps_sd.setting import Estimates

LEAST_TOKENS = 8
"""Who wrote fewer after the prediction was made is left out: nothing hangs on it, and one round is
most of what was to come."""


class _Prediction(NamedTuple):
    seconds: float
    tokens: float
    attained_s: float
    """When the prediction was made."""
    output_tokens: int


class Recorder:
    """Stands before the policy's part for the order, and writes down what it is shown.

    Args:
        policy: a fresh one, with ``laps_sd``.
        first_id: requests with smaller ids are left out: nobody had ended when they came.
    """

    def __init__(self, policy: Policy, first_id: int = 0) -> None:
        self._first_id = first_id
        self._made: dict[int, _Prediction] = {}
        self._seen: dict[int, tuple[float, int]] = {}
        self._here: set[int] = set()
        (self._part,) = (part for part in policy.parts if part.kind.knob is Knob.ORDER)
        self._spread = getattr(self._part.config, "spread", 0.0)
        kind = msgspec.structs.replace(self._part.kind, decide=self._decide)
        parts = tuple(
            Part(kind, part.config) if part is self._part else part for part in policy.parts
        )
        self.policy = Policy(parts, policy.label)

    def _decide(
        self, state: StepState, predictor: StepLatencyPredictor, config: Any, plan: StepPlan
    ) -> OrderPlan:
        self._note(state, predictor)
        decide: Any = self._part.kind.decide
        ordered: OrderPlan = decide(state, predictor, config, plan)
        return ordered

    def _note(self, state: StepState, predictor: StepLatencyPredictor) -> None:
        service = state.service
        if service is None or not predictor.fitted:
            return
        rows = service.rows
        ids, output = state.request_id.tolist(), state.output_tokens.tolist()
        attained = rows.attained_s.tolist()
        self._seen.update(zip(ids, zip(attained, output, strict=True), strict=True))
        waiting = [] if state.prefill is None else state.prefill.request_id.tolist()
        self._here = {*ids, *waiting}
        settled = np.flatnonzero(state.running & (rows.spread < max(self._spread, 1e-9)))
        new = [index for index in settled.tolist() if ids[index] not in self._made]
        if not new:
            return
        seconds = remaining_s(rows, round_s(state, predictor))
        for index in new:
            self._made[ids[index]] = _Prediction(
                float(seconds[index]),
                float(rows.remaining_tokens[index]),
                attained[index],
                output[index],
            )

    def estimates(self) -> Estimates:
        """Of the requests that have ended since."""
        found = []
        for request_id, made in self._made.items():
            attained_s, output = self._seen[request_id]
            tokens, seconds = output - made.output_tokens, attained_s - made.attained_s
            ended = request_id not in self._here and request_id >= self._first_id
            if ended and tokens >= LEAST_TOKENS and seconds > 0:
                found.append((made, tokens, seconds))
        if not found:
            return Estimates()
        paces = [
            made.seconds / made.tokens / (seconds / tokens) - 1.0 for made, tokens, seconds in found
        ]
        return Estimates(
            requests=len(found),
            seconds=median(abs(made.seconds / seconds - 1.0) for made, _, seconds in found),
            pace=median(map(abs, paces)),
            tokens=median(abs(made.tokens / tokens - 1.0) for made, tokens, _ in found),
            after_tokens=median(made.output_tokens for made, _, _ in found),
            pace_bias=median(paces),
        )
