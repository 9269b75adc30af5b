"""What a soak's readings say: growth, and lateness over time."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from governor_bench.soak.watch import Reading

WARM_UP = 1 / 3
"""Share of the run after which caches, logs and pools of sessions are as full as they get."""
END = 1 / 5
"""Share of the rest whose medians are compared: the first such part with the last."""
MOST_RSS_GROWTH_PCT = 2.0
MOST_FILES_GROWTH = 2
"""Connections come and go from one reading to the next."""
PERIODS = 10


def judge(readings: Sequence[Reading]) -> dict[str, Any]:
    """
    Returns:
        ``rss_growth_pct``: the larger of both sides' growth after the warm-up; each side's own;
        ``files_growth`` likewise, in descriptors; ``late_share`` over the whole run and by period.

    Raises:
        ValueError: fewer than ten readings after the warm-up; let it run longer.
    """
    settled = readings[int(len(readings) * WARM_UP) :]
    if len(settled) < PERIODS:
        raise ValueError(f"{len(settled)} readings after the warm-up are too few; run longer")
    first, last = _ends(settled)

    def growth_pct(of: Callable[[Reading], float]) -> float:
        return round(100.0 * (_median(last, of) / _median(first, of) - 1.0), 2)

    def growth(of: Callable[[Reading], float]) -> float:
        return _median(last, of) - _median(first, of)

    controller = growth_pct(lambda one: one.controller_rss)
    scheduler = growth_pct(lambda one: one.scheduler_rss)
    return {
        "rss_growth_pct": max(controller, scheduler),
        "controller_rss_growth_pct": controller,
        "scheduler_rss_growth_pct": scheduler,
        "controller_rss_mib": round(_median(last, lambda one: one.controller_rss) / 2**20, 1),
        "scheduler_rss_mib": round(_median(last, lambda one: one.scheduler_rss) / 2**20, 1),
        "files_growth": max(
            growth(lambda one: one.controller_files), growth(lambda one: one.scheduler_files)
        ),
        "threads_growth": max(
            growth(lambda one: one.controller_threads), growth(lambda one: one.scheduler_threads)
        ),
        "governed_steps": readings[-1].governed_steps - readings[0].governed_steps,
        "late_share": _late_share(readings),
        "late_share_by_period": [
            _late_share(readings[len(readings) * n // PERIODS : len(readings) * (n + 1) // PERIODS])
            for n in range(PERIODS)
        ],
    }


def faults(report: dict[str, Any]) -> list[str]:
    """Promises that the run broke, in words."""
    grown, files, threads = (
        report[key] for key in ("rss_growth_pct", "files_growth", "threads_growth")
    )
    found = [
        (grown > MOST_RSS_GROWTH_PCT, f"memory grew {grown} %, by more than {MOST_RSS_GROWTH_PCT}"),
        (files > MOST_FILES_GROWTH, f"{files:g} more open files"),
        (threads > MOST_FILES_GROWTH, f"{threads:g} more threads"),
        (report["leaked_tokens"], f"{report['leaked_tokens']} tokens of KV memory are not free"),
        (report["errors"], f"{report['errors']} failures, first: {report['first_error']}"),
        (not report["alive"], "engine or controller ended by itself"),
        (not report["churn"].get("requests"), "nobody was served"),
        (not report["governed_steps"], "nothing was governed"),
    ]
    return [words for broken, words in found if broken]


def _ends(settled: Sequence[Reading]) -> tuple[Sequence[Reading], Sequence[Reading]]:
    length = max(1, int(len(settled) * END))
    return settled[:length], settled[-length:]


def _median(readings: Sequence[Reading], of: Callable[[Reading], float]) -> float:
    return statistics.median(map(of, readings))


def _late_share(readings: Sequence[Reading]) -> float:
    """Of the steps between the first and the last of them."""
    first, last = readings[0], readings[-1]
    steps = last.governed_steps - first.governed_steps
    return round((last.late_steps - first.late_steps) / steps, 5) if steps else 0.0
