"""Records, origins and logs for the tests of the decision log."""

from __future__ import annotations

import time
from pathlib import Path

from controller_builders import feedback_of, hello_of
from governor_protos.messages import RequestEnd

from controller_service.logbook.book import Logbook
from controller_service.logbook.origin import Origin
from controller_service.records import DecisionRecord, Expectation, StepLog, StepRecord

EXPECTED = Expectation(0.011, 0.013, "linear", 3, "m1")


def decision_of(step: int, **facts: object) -> DecisionRecord:
    values: dict[str, object] = {
        "policy": "taper:rho=0.5",
        "rows": 8,
        "mandatory_rows": 2,
        "extra_rows": 4,
        "parked_rows": 2,
        "predicted_step_s": 0.012,
        "baseline_step_s": 0.008,
        "budget_s": 0.02,
        "slack_s": -0.5,
        "predictor_version": 2,
        "kv_used_tokens": 100,
        "kv_total_tokens": 1000,
        "waiting_requests": 3,
        "waiting_prefill_tokens": 77,
    }
    return DecisionRecord(step=step, **{**values, **facts})


def step_of(step: int, *, decided: bool = True, **facts: object) -> StepRecord:
    log = StepLog()
    if decided:
        log.decided(decision_of(step))
    return log.finished(feedback_of(step, **facts), EXPECTED)


def end_of(request_id: int, reason: int = 0) -> RequestEnd:
    return RequestEnd(request_id, 5, 100, 20, 64, reason, 1.5, 8, 6)


def origin_of(engine_id: str = "engine-1", incarnation: str = "a") -> Origin:
    return Origin.of(hello_of(engine_id, incarnation), "0.1.0")


def book_at(folder: Path, **settings: int) -> Logbook:
    values = {"max_bytes": 64 << 20, "buffer_rows": 16, "buffers": 4, **settings}
    return Logbook(folder, governor_version="0.1.0", **values)


def write_log(
    folder: Path, steps: int, engine_id: str = "engine-1", incarnation: str = "a", ends: int = 0
) -> None:
    """A log of ``steps`` steps, numbered from 0, and ``ends`` ends, in buffers that hold all."""
    book = book_at(folder, buffer_rows=max(16, steps, ends))
    book.start()
    log = book.open(hello_of(engine_id, incarnation))
    for step in range(steps):
        latency_s = 0.005 + 0.001 * (step % 10)
        log.step(step_of(step, rows=step % 8 + 1, latency_s=latency_s), time.monotonic())
    for request in range(ends):
        log.end(end_of(request, request % 4), time.monotonic())
    book.close()
    assert sum(book.health().written.values()) == steps + ends
