"""``check soak``: what is judged, and the churn around a live engine for half a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from governor_bench.soak.judge import WARM_UP, faults, judge
from governor_bench.soak.plot import plot
from governor_bench.soak.run import soak
from governor_bench.soak.watch import Reading

SOUND = {"churn": {"requests": 5}, "errors": 0, "first_error": "", "leaked_tokens": 0}
SOUND |= {"alive": True}


def readings(growth: float = 0.0, files: int = 0, threads: int = 0) -> list[Reading]:
    """Ninety of them, one a second. After the warm-up of thirty, something grows evenly."""
    made = []
    for at in range(90):
        grown = max(0, at - 29) / 60
        made.append(
            Reading(
                at_s=at,
                controller_rss=int((200 + at) * 2**20) if at < 30 else 230 << 20,
                scheduler_rss=int((1 + growth * grown) * (900 << 20)),
                controller_files=20 + int(files * grown),
                scheduler_files=80,
                controller_threads=5,
                scheduler_threads=9 + int(threads * grown),
                governed_steps=100 * at,
                late_steps=at if at < 45 else 45,
            )
        )
    return made


def test_what_grows_only_while_warming_up_is_not_growth() -> None:
    report = judge(readings())
    assert report["rss_growth_pct"] == 0
    assert faults(report | SOUND) == []


def test_growth_after_the_warm_up_is_told_by_side() -> None:
    report = judge(readings(growth=0.1))
    assert report["controller_rss_growth_pct"] == 0
    assert 7 < report["scheduler_rss_growth_pct"] == report["rss_growth_pct"] < 10
    assert any("memory grew" in fault for fault in faults(report | SOUND))


def test_lateness_is_told_over_time() -> None:
    report = judge(readings())
    assert report["late_share"] == pytest.approx(45 / 8900, abs=1e-4)
    assert report["late_share_by_period"][0] == pytest.approx(0.01)
    assert report["late_share_by_period"][-1] == 0


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"files_growth": 9}, "9 more open files"),
        ({"threads_growth": 9}, "9 more threads"),
        ({"leaked_tokens": 3}, "3 tokens of KV memory"),
        ({"errors": 1, "first_error": "HTTP 500"}, "1 failures, first: HTTP 500"),
        ({"alive": False}, "ended by itself"),
        ({"churn": {}}, "nobody was served"),
        ({"governed_steps": 0}, "nothing was governed"),
    ],
)
def test_every_promise_can_be_broken(change: dict[str, Any], fault: str) -> None:
    (found,) = faults(judge(readings()) | SOUND | change)
    assert fault in found


def test_growing_files_and_threads_are_found() -> None:
    found = faults(judge(readings(files=30, threads=20)) | SOUND)
    assert [fault.split()[1:] for fault in found] == [
        ["more", "open", "files"],
        ["more", "threads"],
    ]


def test_too_short_a_run_is_refused() -> None:
    with pytest.raises(ValueError, match="run longer"):
        judge(readings()[:12])


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    assert plot(readings(0.05, 5), WARM_UP, tmp_path / "soak.png").stat().st_size > 10_000


@pytest.mark.engine
def test_everybody_comes_and_goes_around_a_live_engine() -> None:
    told: list[float] = []
    report, kept = soak(30.0, 1, told.append)
    assert len(told) == len(kept) > 10
    assert (report["errors"], report["first_error"]) == (0, "")
    assert report["alive"]
    assert report["leaked_tokens"] == 0
    assert report["governed_steps"] > 0
    seen = report["churn"]
    assert seen.keys() >= {"requests", "aborts", "hang_ups", "visitors", "policy_switches"}
