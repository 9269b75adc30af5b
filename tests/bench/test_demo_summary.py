"""What the demo sums up of a policy's turns, on turns made by hand; its stages; its plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from governor_bench.commands.demo import demo
from governor_bench.demo.measure import Turn, summarise_policy
from governor_bench.demo.plot import plot_turns
from governor_bench.demo.run import POLICIES, SPARE_TURNS, Settings, play
from governor_bench.engine_metrics import GovernorCounters
from governor_bench.eval.emulated_pair import Observed
from governor_workloads.served import Served
from governor_workloads.spec import Workload

COUNTERS = GovernorCounters({"applied": 9, "late": 1}, {"late": 1, "stale": 0}, 7, 0, 0, True)
CHAT = Served(0, 1, None, 0.05, 0.0, 0.0, 4.0, 101)
TURNAROUND_US = {"p50": 100.0, "p99": 300.0}
SOUND, HELD_UP = (
    {
        "governor_emulated_steps_total": 100.0,
        "governor_emulated_host_limited_steps_total": 10.0,
        "governor_emulated_busy_seconds_total": 10.0,
        "governor_emulated_host_limited_seconds_total": lost_s,
    }
    for lost_s in (0.1, 2.0)
)


def step(number: int, rows: int, parked: int, predicted: float = 0.02) -> dict[str, Any]:
    decision = {
        "extra_rows": rows - 1,
        "parked_rows": parked,
        "predicted_step_s": predicted,
        "slack_s": 0.01,
    }
    return {
        "step": number,
        "kind": 0,
        "rows": rows,
        "parked_rows": parked,
        "latency_s": 0.025,
        "decision": decision,
    }


def test_a_policy_is_summed_up_over_its_turns(tmp_path: Path) -> None:
    steps = [step(number, 4 + number % 3, 1) for number in range(50)]
    turn = Turn.of("taper", 1, [CHAT], SOUND, COUNTERS, steps, TURNAROUND_US, 9.0, 1.0)
    summary = summarise_policy("taper", [turn, turn])
    assert summary.applied_share == pytest.approx(0.9)
    assert summary.parked_row_steps == 14
    assert summary.step_error_pct == pytest.approx(20.0)
    assert summary.mean_width == pytest.approx(5.0, abs=0.1)
    assert summary.chat_tpot_p50_ms == pytest.approx(40.0)
    assert summary.held_up.steps_share == pytest.approx(0.1)
    assert turn.in_short()["chats"] == "40.0"
    assert turn.in_short()["steps"] == []
    plot_turns([turn], 2.0, 50.0, tmp_path / "turns.png")
    assert (tmp_path / "turns.png").stat().st_size > 1000


class FakePair:
    """Stands in for engine and controller; the host is slow in the turns that are listed."""

    def __init__(self, slow_turns: set[int]) -> None:
        self._slow_turns = slow_turns
        self.policies: list[str] = []
        self.workloads: list[Workload] = []

    def serve(self, policy: str, workload: Workload, *, keep_cache: bool) -> list[Served]:
        assert keep_cache
        return []

    def observe(self, policy: str, workload: Workload, *, keep_cache: bool) -> Observed:
        assert keep_cache
        self.policies.append(policy)
        self.workloads.append(workload)
        device = HELD_UP if len(self.policies) in self._slow_turns else SOUND
        return Observed([CHAT], COUNTERS, device, [], 1.0)

    def turnaround_us(self) -> dict[str, float]:
        return TURNAROUND_US


def played(slow_turns: set[int]) -> tuple[FakePair, list[Turn], list[str]]:
    pair, said = FakePair(slow_turns), []
    turns = play(pair, Settings(rounds=2), said.append)  # type: ignore[arg-type]
    return pair, turns, said


def test_policies_take_turns_and_none_always_follows_the_same_one() -> None:
    pair, turns, said = played(set())
    off, eager, governed = POLICIES
    assert pair.policies == [off, eager, governed, eager, governed, off]
    assert [turn.seed for turn in turns] == [1, 1, 1, 2, 2, 2]
    assert len(said) == 1 + 6
    assert "round 2 of 2, off: 1 of 1 chats kept their target" in said[-1]


def test_a_void_turn_is_played_again_with_the_same_arrivals() -> None:
    pair, turns, said = played({2})
    assert pair.policies[1] == pair.policies[-1]
    assert len(turns) == 7
    assert [turn.held_up.too_far for turn in turns] == [False, True, *[False] * 5]
    assert "void, to be played again" in said[2]
    first, again = pair.workloads[1].requests, pair.workloads[-1].requests
    assert [item.arrival_s for item in first] == [item.arrival_s for item in again]
    assert first[0].index != again[0].index


def test_turns_are_not_played_again_for_ever() -> None:
    _, turns, said = played(set(range(100)))
    assert len(turns) == 6 + SPARE_TURNS
    assert said[-1].endswith("void")
    assert [summarise_policy(policy, turns).turns for policy in POLICIES] == [0, 0, 0]


def test_the_commands_defaults_are_the_demos_own() -> None:
    shown = {option.name: option.default for option in demo.params}
    assert (shown["rounds"], shown["scale"]) == (Settings().rounds, Settings().scale)
