"""What ``governor status`` shows. Runs on the loop's thread."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import msgspec
import numpy as np
from governor_protos.messages import Outcome, StepKind

from controller_service.controller import Controller
from controller_service.models.status import model_status
from controller_service.records import StepRecord
from controller_service.session import EngineSession


def controller_status(controller: Controller, uptime_s: float, now_s: float) -> dict[str, Any]:
    """The controller and its engines, as JSON types."""
    return {
        "controller_id": controller.controller_id,
        "version": controller.version,
        "policy": controller.policy.label,
        "uptime_s": uptime_s,
        "policy_errors": controller.stats.policy_errors,
        "memory_errors": controller.stats.memory_errors,
        "log": None if controller.logbook is None else controller.logbook.health(),
        "engines": [
            _engine_status(session, now_s - heard_s) for session, heard_s in controller.sessions
        ],
    }


def recent_steps(controller: Controller, engine: str, last: int) -> list[StepRecord] | None:
    """The newest step records of ``engine``, oldest first; ``None`` if there is no such engine.

    Without a name: of the engine heard of last.
    """
    known = [(heard, s) for s, heard in controller.sessions if engine in ("", s.hello.engine_id)]
    if not known:
        return None
    # A restarted engine and its former self may both have a seat for a while.
    _, newest = max(known, key=lambda pair: pair[0])
    return list(newest.log.last(last))


def policy_status(controller: Controller) -> dict[str, Any]:
    """The policy that runs, and what engines cannot carry out of it."""
    return {
        "policy": controller.policy.label,
        "parts": [
            {
                "policy": part.kind.name,
                "decides": str(part.kind.knob),
                "settings": msgspec.structs.asdict(part.config),
            }
            for part in controller.policy.parts
        ],
        "unmet": [
            {"engine": session.hello.engine_id, **msgspec.structs.asdict(one)}
            for session, _ in controller.sessions
            for one in session.unmet
        ],
    }


def in_words(record: StepRecord) -> dict[str, Any]:
    """A record as the decision log has it: kind and outcome in words. Any thread may do this."""
    return {
        **msgspec.structs.asdict(record),
        "kind": _word(StepKind, record.kind),
        "outcome": _word(Outcome, record.outcome),
    }


def _word(kind: type[IntEnum], number: int) -> str:
    return next((member.name.lower() for member in kind if member == number), "unknown")


def _engine_status(session: EngineSession, silent_s: float) -> dict[str, Any]:
    hello, predictor = session.hello, session.predictor
    turnarounds = sorted(session.turnarounds_s)
    return {
        "engine_id": hello.engine_id,
        "incarnation": hello.incarnation,
        "sglang_version": hello.sglang_version,
        "url": hello.url,
        "model": hello.model,
        "device": hello.device,
        "tp_size": hello.tp_size,
        "dp_rank": hello.dp_rank,
        "overlap": hello.overlap,
        "max_running_requests": hello.max_running_requests,
        "max_total_tokens": hello.max_total_tokens,
        "max_context_tokens": hello.max_context_tokens,
        "page_size": hello.page_size,
        "chunked_prefill_tokens": hello.chunked_prefill_tokens,
        "speculative_algorithm": hello.speculative_algorithm,
        "knobs": hello.knobs,
        "unmet": list(session.unmet),
        "draft_lengths": hello.draft_lengths,
        "drafting": None if hello.drafting is None else msgspec.structs.asdict(hello.drafting),
        "graph_rows": hello.graph_rows,
        "steps": session.log.steps_seen,
        "rows": session.rows,
        "last_snapshot_age_s": silent_s,
        "outcomes": session.outcomes.by_name(),
        "turnaround_us": {
            "p50": _quantile_us(turnarounds, 0.5),
            "p99": _quantile_us(turnarounds, 0.99),
        },
        "predictor": {
            "name": predictor.name,
            "fitted": predictor.fitted,
            "coefficients": dict(predictor.coefficients()),
            "mape_recent": mean_error(session),
            "p90_coverage": float(np.mean(session.covered)) if session.covered else None,
            "model": model_status(session),
        },
    }


def mean_error(session: EngineSession) -> float | None:
    """Mean absolute relative error of recent predictions; ``None`` before there are any."""
    return float(np.mean(session.errors)) if session.errors else None


def _quantile_us(ordered: list[float], quantile: float) -> float | None:
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))] * 1e6
