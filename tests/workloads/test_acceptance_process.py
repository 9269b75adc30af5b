"""Acceptance of synthetic drafts: drawn once, and as described."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from governor_workloads.acceptance import Acceptance, LevelShift
from governor_workloads.errors import WorkloadError
from governor_workloads.generator import generate
from governor_workloads.mix import Mix
from hypothesis import example, given
from hypothesis import strategies as st

PROCESSES = st.builds(
    Acceptance,
    level=st.floats(0, 1),
    spread=st.floats(0, 0.45),
    drift=st.floats(0, 3),
    burst_share=st.floats(0, 0.9),
)


@example(Acceptance(level=0.0, spread=1e-158), 0, 0, 1, 0)
@given(PROCESSES, st.integers(0, 5), st.integers(0, 50), st.integers(1, 100), st.integers(0, 100))
def test_more_positions_leave_those_before_as_they_are(
    process: Acceptance, seed: int, request: int, tokens: int, more: int
) -> None:
    short, long = (process.luck(seed, request, 0, count) for count in (tokens, tokens + more))
    assert np.array_equal(short.choice, long.choice[:tokens])
    assert np.all((short.level > 0) & (short.level < 1))
    assert short.choice.min() >= 1


def test_the_first_choice_is_right_as_often_as_the_level_says() -> None:
    for level in (0.3, 0.7, 0.95):
        found = np.concatenate([Acceptance(level).luck(1, n, 0, 500).choice for n in range(20)])
        assert (found == 1).mean() == pytest.approx(level, abs=0.02)
        assert (found == 2).mean() == pytest.approx(level * (1 - level), abs=0.02)


def test_requests_differ_by_their_spread() -> None:
    process = Acceptance(0.6, spread=0.2)
    levels = [process.luck(2, number, 0, 1).level[0] for number in range(800)]
    assert np.mean(levels) == pytest.approx(0.6, abs=0.03)
    assert np.std(levels) == pytest.approx(0.2, abs=0.03)


def test_bursts_take_their_share() -> None:
    process = Acceptance(0.8, burst_share=0.25, burst_factor=0.5)
    level = np.concatenate([process.luck(3, n, 0, 800).level for n in range(20)])
    assert (level < 0.5).mean() == pytest.approx(0.25, abs=0.05)
    assert set(np.round(level, 6)) == {0.8, 0.4}


def test_a_level_wanders_along_the_output() -> None:
    luck = Acceptance(0.6, drift=1.0, drift_tokens=20).luck(1, 0, 0, 2000)
    assert luck.level.std() > 0.1
    assert np.abs(np.diff(luck.level)).max() < 0.1, "and does not jump"


def test_levels_shift_with_the_order_of_requests() -> None:
    process = Acceptance(0.9, shifts=(LevelShift(10, 0.2), LevelShift(20, 0.5)))
    assert [process.mean_of(number) for number in (0, 9, 10, 19, 20, 99)] == [
        0.9, 0.9, 0.2, 0.2, 0.5, 0.5,
    ]  # fmt: skip


def test_branches_of_a_request_have_luck_of_their_own() -> None:
    process = Acceptance(0.5)
    first, second = (process.luck(1, 4, branch, 200).choice for branch in (0, 1))
    assert not np.array_equal(first, second)


MIX = {
    "arrivals": {"kind": "closed", "users": 2},
    "requests": 4,
    "prompt_tokens": {"kind": "constant", "tokens": 5},
    "output_tokens": {"kind": "constant", "tokens": 5},
}


def test_a_mix_carries_it_into_the_workload_and_says_so() -> None:
    plain = generate(Mix.of(MIX), 1)
    load = generate(Mix.of({**MIX, "acceptance": {"level": 0.7, "spread": 0.1}}), 1)
    assert load.acceptance == Acceptance(0.7, spread=0.1)
    assert "draft acceptance 0.7" in load.description
    assert plain.acceptance is None
    assert load.requests == plain.requests, "nothing else is drawn differently"


@pytest.mark.parametrize(
    "wrong",
    [
        {"level": 1.1},
        {"level": 0.5, "spread": 0.6},
        {"level": 0.5, "speed": 1},
        {
            "level": 0.5,
            "shifts": [{"from_request": 5, "level": 1}, {"from_request": 5, "level": 0}],
        },
    ],
    ids=range(4),
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(WorkloadError):
        Mix.of({**MIX, "acceptance": wrong})
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, Acceptance)
