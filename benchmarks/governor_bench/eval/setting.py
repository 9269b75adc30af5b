"""One run of an evaluation, and what came of it."""

from __future__ import annotations

from typing import Any

import msgspec
from governor_workloads.report import LoadReport

STOCK = "stock"
"""Instead of a policy: the engine is not governed."""


class Setting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that determines one run."""

    workload: str
    """Name in :mod:`governor_bench.eval.workloads`."""
    load: float
    """Users in a closed loop; requests per second in an open one."""
    policy: str
    profile: str
    slo_ms: float
    seed: int
    predictor: str = "linear"
    replan_steps: int = 1
    predictor_factor: float = 1.0
    """The predictor's base is wrong by this factor (1: right)."""
    seconds: float = 120.0
    """Length of the run, of the workload's clock."""
    warm_up_s: float = 50.0
    """Requests that finish earlier are not judged."""


class Outcome(msgspec.Struct, frozen=True):
    """What one run came to."""

    setting: Setting
    report: LoadReport
    rows: float
    """Rows that advanced in a decode step, mean."""
    parked: float
    """Rows that sat a decode step out, mean."""
    step_ms: float
    """Duration of a decode step, mean."""
    late_share: float
    """Governed steps without a fresh decision."""
    host: dict[str, Any]
    """How far the machine that ran it can be trusted: its own time, and what it held up."""
