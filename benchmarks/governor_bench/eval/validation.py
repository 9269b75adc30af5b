"""S against E: the same settings in the simulator and on real SGLang with emulated step times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from governor_profiles import preferred_profile

from governor_bench.eval.setting import Outcome, Setting
from governor_bench.eval.workloads import STEADY

PROFILE = preferred_profile("qwen3-32b-h200")
POLICIES = ("eager", "off", "cap:2", "taper", "taper_plus")
LOADS = (64.0, 112.0)
SLO_MS = 50.0


def settings(*, quick: bool) -> list[Setting]:
    """What is run on both tiers."""
    seconds, warm_up_s = (12.0, 5.0) if quick else (75.0, 30.0)
    loads, policies = ((24.0,), POLICIES[:2]) if quick else (LOADS, POLICIES)
    return [
        Setting(
            workload=STEADY,
            load=load,
            policy=policy,
            profile=PROFILE,
            slo_ms=SLO_MS,
            seed=1,
            seconds=seconds,
            warm_up_s=warm_up_s,
        )
        for load in loads
        for policy in policies
    ]


def compare(simulated: Sequence[Outcome], emulated: Sequence[Outcome]) -> dict[str, Any]:
    """Errors of S against E, in per cent: one entry a setting, and their medians."""
    cells = [_cell(s, e) for s, e in zip(simulated, emulated, strict=True)]
    return {
        "median_tpot_error_pct": _median([cell["tpot_error_pct"] for cell in cells]),
        "median_goodput_error_pct": _median([cell["goodput_error_pct"] for cell in cells]),
        "worst_tpot_error_pct": max(cell["tpot_error_pct"] for cell in cells),
        "worst_goodput_error_pct": max(cell["goodput_error_pct"] for cell in cells),
        "settings": len(cells),
        "cells": cells,
    }


def _cell(s: Outcome, e: Outcome) -> dict[str, Any]:
    return {
        "policy": s.setting.policy,
        "load": s.setting.load,
        "tpot_error_pct": _error_pct(s.report.tpot_mean_s, e.report.tpot_mean_s),
        "serial_tpot_error_pct": _error_pct(s.report.serial_tpot_p50_s, e.report.serial_tpot_p50_s),
        "branching_tpot_error_pct": _error_pct(
            s.report.branching_tpot_mean_s, e.report.branching_tpot_mean_s
        ),
        "goodput_error_pct": _error_pct(s.report.goodput_tok_s, e.report.goodput_tok_s),
        "simulated": _figures(s),
        "emulated": _figures(e),
    }


def _figures(outcome: Outcome) -> dict[str, Any]:
    report = outcome.report
    return {
        "goodput_tok_s": report.goodput_tok_s,
        "throughput_tok_s": report.throughput_tok_s,
        "attainment": report.attainment,
        "tpot_mean_ms": 1e3 * report.tpot_mean_s,
        "branching_tpot_mean_ms": 1e3 * report.branching_tpot_mean_s,
        "serial_tpot_p50_ms": 1e3 * report.serial_tpot_p50_s,
        "ttft_p50_ms": 1e3 * report.ttft_p50_s,
        "rows": outcome.rows,
        "parked": outcome.parked,
        "step_ms": outcome.step_ms,
        "late_share": outcome.late_share,
        "host": msgspec.to_builtins(outcome.host),
    }


def _error_pct(simulated: float, emulated: float) -> float:
    return 100.0 * abs(simulated / emulated - 1.0) if emulated else 0.0


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))
