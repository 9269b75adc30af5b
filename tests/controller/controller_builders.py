"""Rows, snapshots and predictors for the controller's tests."""

from __future__ import annotations

import numpy as np
from governor_protos.columns import ROW_COLUMNS, pack
from governor_protos.limits import MAX_DURATION_S
from governor_protos.messages import Hello, Role, Rows, Snapshot, StepFeedback

from controller_service.predictors.base import StepSample
from controller_service.predictors.linear import LinearPredictor, OnlineLinearPredictor
from controller_service.state import StepState

DEFAULTS = {
    "group_id": 0,
    "role": int(Role.SERIAL),
    "flags": 0,
    "context_tokens": 100,
    "output_tokens": 10,
    "max_new_tokens": 1000,
    "priority": 0,
    "parked_steps": 0,
    "age_s": 1.0,
    "since_first_token_s": 0.5,
    "since_last_token_s": 0.01,
    "ttft_slo_s": 1.0,
    "tpot_slo_s": 0.05,
    "group_output_tokens": 0,
    "draft_tokens": 0,
    "accepted_tokens": 0,
    "expected_tokens": 0,
}


def rows_of(rows: list[dict[str, float]]) -> Rows:
    """Pack rows given as facts; what is left out takes a default, ids count from 1."""
    whole = [{"request_id": index + 1, **DEFAULTS, **row} for index, row in enumerate(rows)]
    return Rows(
        **{name: pack(code, [row[name] for row in whole]) for name, code in ROW_COLUMNS.items()}
    )


def state_of(rows: list[dict[str, float]], for_step: int = 7) -> StepState:
    return StepState.from_rows(rows_of(rows), for_step)


def serial(**facts: float) -> dict[str, float]:
    return {"role": int(Role.SERIAL), **facts}


def trunk(group: int, **facts: float) -> dict[str, float]:
    return {"role": int(Role.TRUNK), "group_id": group, **facts}


def extra(group: int, **facts: float) -> dict[str, float]:
    return {"role": int(Role.OPPORTUNISTIC), "group_id": group, **facts}


def batch(requests: int, branches: int, *, tpot_slo_s: float = 0.05, seed: int = 0) -> Rows:
    """``requests`` requests with one trunk and ``branches - 1`` extra branches each."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, float]] = []
    for group in range(1, requests + 1):
        for branch in range(branches):
            make = trunk if branch == 0 else extra
            facts = {
                "context_tokens": int(rng.integers(50, 4000)),
                "since_last_token_s": float(rng.uniform(0, 0.02)),
                "tpot_slo_s": tpot_slo_s,
            }
            rows.append(make(group, **facts))
    return rows_of(rows)


def snapshot_of(rows: Rows, for_step: int, feedback: list[StepFeedback] | None = None) -> Snapshot:
    return Snapshot(for_step, rows, 1000, 100_000, 0, 0, feedback or [], 0)


def feedback_of(step: int, rows: int = 8, context: int = 4000, **facts: float) -> StepFeedback:
    values = {"kind": 0, "prefill_tokens": 0, "latency_s": 0.01, "outcome": 0, "parked_rows": 0}
    values.update(facts)
    return StepFeedback(step=step, rows=rows, context_tokens=context, **values)


def hello_of(engine_id: str = "engine-1", incarnation: str = "a", major: int = 1) -> Hello:
    return Hello(
        protocol_major=major,
        protocol_minor=0,
        engine_id=engine_id,
        incarnation=incarnation,
        plugin_version="0.1.0",
        sglang_version="0.5.17",
        model="a/model",
        tp_size=1,
        dp_rank=0,
        overlap=True,
        max_running_requests=256,
        max_total_tokens=1 << 20,
        max_context_tokens=8192,
        page_size=1,
        chunked_prefill_tokens=-1,
        speculative_algorithm="",
        draft_lengths=[],
        knobs=["branches"],
    )


class KnownPredictor(LinearPredictor):
    """A line with coefficients that are given, so that a test knows what is right."""

    def __init__(self, a: float, b: float, c: float, d: float = 0.0) -> None:
        super().__init__()
        self._a, self._b, self._c, self._d = a, b, c, d
        self.fitted = True

    def refit_due(self, now_s: float) -> bool:
        return False

    def _remember(self, sample: StepSample) -> None:
        """What it knows it was given."""


def fitted_line(a: float = 0.007, b: float = 4e-5, c: float = 1.4e-8) -> OnlineLinearPredictor:
    """An online predictor that has seen varied, exact steps."""
    predictor = OnlineLinearPredictor()
    rng = np.random.default_rng(1)
    for _ in range(400):
        rows = int(rng.integers(1, 256))
        context = rows * int(rng.integers(64, 4096))
        predictor.observe(StepSample(rows, context, 0, a + b * rows + c * context))
    predictor.refit(0.0)
    return predictor


NO_PROMISE_S = MAX_DURATION_S
