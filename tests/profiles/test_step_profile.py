"""Step times: values, and the shape that every profile has."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from governor_profiles import Bends, Grid, StepProfile
from hypothesis import given
from hypothesis import strategies as st

LINEAR = StepProfile(
    name="linear",
    source="made up",
    measured=False,
    fixed_s=0.010,
    row_s=1e-4,
    context_token_s=1e-6,
    prefill_token_s=2e-5,
    draft_token_s=5e-5,
    kv_tokens=1000,
)


def measured(rows: list[int], context: list[int], seconds: list[list[float]]) -> StepProfile:
    return msgspec.structs.replace(LINEAR, grid=Grid(rows, context, seconds))


def bent(**parts: Any) -> StepProfile:
    return msgspec.structs.replace(LINEAR, bends=Bends(**parts))


GRIDDED = measured([2, 8], [100, 1100], [[0.01, 0.02], [0.03, 0.06]])


@st.composite
def grids(draw: st.DrawFn) -> StepProfile:
    axis = st.lists(st.integers(1, 5000), min_size=2, max_size=6, unique=True).map(sorted)
    rows, context = draw(axis), draw(axis)
    rise = st.floats(0, 0.01)
    # Sums of rises over both axes never fall along either.
    rises = [[draw(rise) for _ in context] for _ in rows]
    seconds = [
        [6.0 + sum(sum(line[: j + 1]) for line in rises[: i + 1]) for j in range(len(context))]
        for i in range(len(rows))
    ]
    return measured(rows, context, seconds)


@st.composite
def bends(draw: st.DrawFn) -> StepProfile:
    sizes = draw(st.lists(st.integers(1, 4000), max_size=6, unique=True).map(sorted))
    return bent(
        graph_rows=tuple(sizes),
        tile_rows=draw(st.integers(1, 300)),
        tile_s=draw(st.floats(0, 0.01)),
        knee_tokens=draw(st.integers(0, 9000)),
        knee_token_s=draw(st.floats(0, 1e-5)),
    )


def test_linear_is_the_sum_of_its_parts() -> None:
    assert LINEAR.step_s(3, 2000) == pytest.approx(0.010 + 3e-4 + 2e-3)
    assert LINEAR.step_s(3, 2000, 50, 4) == pytest.approx(0.010 + 3e-4 + 2e-3 + 1e-3 + 2e-4)


def test_a_step_of_nothing_takes_no_time() -> None:
    assert LINEAR.step_s(0, 0) == 0
    assert GRIDDED.step_s(0, 0) == 0
    assert LINEAR.step_s(0, 0, prefill_tokens=1) > LINEAR.fixed_s


@pytest.mark.parametrize(
    ("rows", "context", "expected"),
    [
        (2, 100, 0.01),
        (8, 1100, 0.06),
        (5, 600, 0.03),  # the middle: mean of the corners
        (2, 600, 0.015),
        (10, 1100, 0.06 + 2e-4),  # beyond: the linear slopes
        (8, 2100, 0.06 + 1e-3),
        (1, 50, 0.01 - 1e-4 - 5e-5),
    ],
)
def test_a_grid_is_interpolated_inside_and_extended_outside(
    rows: int, context: int, expected: float
) -> None:
    assert GRIDDED.step_s(rows, context) == pytest.approx(expected)
    assert GRIDDED.step_s(rows, context, 10) == pytest.approx(expected + 2e-4)


@pytest.mark.parametrize(
    ("parts", "rows", "context", "expected"),
    [
        ({}, 5, 2000, 0.010 + 5e-4 + 2e-3),
        ({"graph_rows": (4, 8)}, 3, 0, 0.010 + 4e-4),
        ({"graph_rows": (4, 8)}, 4, 0, 0.010 + 4e-4),
        ({"graph_rows": (4, 8)}, 5, 0, 0.010 + 8e-4),
        ({"graph_rows": (4, 8)}, 9, 0, 0.010 + 9e-4),  # beyond the graphs: not padded
        ({"tile_rows": 4, "tile_s": 0.002}, 4, 0, 0.010 + 4e-4 + 0.002),
        ({"tile_rows": 4, "tile_s": 0.002}, 5, 0, 0.010 + 5e-4 + 0.004),
        ({"graph_rows": (3, 6), "tile_rows": 4, "tile_s": 0.002}, 4, 0, 0.010 + 6e-4 + 0.004),
        ({"knee_tokens": 1000, "knee_token_s": 3e-6}, 1, 1000, 0.010 + 1e-4 + 1e-3),
        ({"knee_tokens": 1000, "knee_token_s": 3e-6}, 1, 1500, 0.010 + 1e-4 + 1.5e-3 + 1.5e-3),
    ],
)
def test_bends_are_the_sum_of_their_parts(
    parts: dict[str, Any], rows: int, context: int, expected: float
) -> None:
    assert bent(**parts).step_s(rows, context) == pytest.approx(expected)


def test_a_step_of_prefill_alone_starts_no_tile() -> None:
    profile = bent(graph_rows=(4,), tile_rows=4, tile_s=1.0)
    assert profile.step_s(0, 0, 10) == LINEAR.step_s(0, 0, 10)


def test_a_grid_with_points_beside_each_graph_size_keeps_the_jumps() -> None:
    truth = bent(graph_rows=(4, 8, 16), tile_rows=8, tile_s=0.003)
    rows, context = [1, 4, 5, 8, 9, 16, 17, 32], [0, 1000]
    copy = measured(rows, context, [[truth.step_s(r, c) for c in context] for r in rows])
    for batch in range(1, 18):
        assert copy.step_s(batch, 700) == pytest.approx(truth.step_s(batch, 700))


def test_a_grid_of_graph_sizes_is_read_at_the_padded_size() -> None:
    grid = Grid([4, 8], [0, 1000], [[0.01, 0.02], [0.03, 0.04]])
    profile = msgspec.structs.replace(LINEAR, grid=grid, bends=Bends(graph_rows=(4, 8)))
    assert [profile.step_s(batch, 0) for batch in (1, 4, 5, 8)] == [0.01, 0.01, 0.03, 0.03]
    assert profile.graph_rows == (4, 8)


@given(grids() | bends(), st.integers(1, 9000), st.integers(0, 9000), st.integers(0, 500))
def test_more_work_never_takes_less_time(
    profile: StepProfile, rows: int, context: int, more: int
) -> None:
    tolerance = 1 + 1e-12
    here = profile.step_s(rows, context)
    assert math.isfinite(here)
    assert here > 0
    assert here <= profile.step_s(rows + more, context) * tolerance
    assert here <= profile.step_s(rows, context + more) * tolerance
    assert here <= profile.step_s(rows, context, more)


@given(grids())
def test_a_grid_returns_what_was_measured(profile: StepProfile) -> None:
    grid = profile.grid
    assert grid is not None
    for i, rows in enumerate(grid.rows):
        for j, context in enumerate(grid.context_tokens):
            assert profile.step_s(rows, context) == pytest.approx(grid.seconds[i][j])


@given(grids(), st.integers(0, 9000), st.integers(0, 9000))
def test_inside_a_grid_lies_between_its_extremes(
    profile: StepProfile, rows: int, context: int
) -> None:
    grid = profile.grid
    assert grid is not None
    rows = min(max(rows, grid.rows[0]), grid.rows[-1])
    context = min(max(context, grid.context_tokens[0]), grid.context_tokens[-1])
    value = profile.step_s(rows, context)
    assert grid.seconds[0][0] - 1e-9 <= value <= grid.seconds[-1][-1] + 1e-9


@pytest.mark.parametrize(
    ("rows", "context", "seconds", "message"),
    [
        ([2, 2], [1, 2], [[1.0, 1.0], [1.0, 1.0]], r"grid\.rows must rise"),
        ([1, 2], [5, 2], [[1.0, 1.0], [1.0, 1.0]], r"grid\.context_tokens must rise"),
        ([1, 2], [1, 2], [[1.0, 1.0]], "1 lines for 2"),
        ([1, 2], [1, 2], [[1.0, 1.0], [1.0]], r"grid\.seconds\[1\] has 1 entries for 2"),
        ([1, 2], [1, 2], [[1.0, 0.9], [1.0, 1.0]], r"grid\.seconds\[0\] falls as context"),
        ([1, 2], [1, 2], [[1.0, 1.1], [1.0, 1.0]], r"falls as"),
        ([1, 2], [1, 2], [[2.0, 2.0], [1.0, 1.0]], r"grid\.seconds\[\*\]\[0\] falls as rows"),
    ],
)
def test_bad_grids_are_explained(
    rows: list[int], context: list[int], seconds: list[list[float]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Grid(rows, context, seconds)


def test_a_grid_that_cannot_reach_one_row_is_refused() -> None:
    far: dict[str, Any] = {"row_s": 1.0}
    with pytest.raises(ValueError, match="lead below zero"):
        msgspec.structs.replace(GRIDDED, **far)


def test_draft_steps_cost_by_the_longest_draft_and_the_whole_batch() -> None:
    drafting = msgspec.structs.replace(LINEAR, draft_step_s=1e-3, draft_row_s=1e-5)
    plain = LINEAR.step_s(8, 1000, 0, 24)
    assert drafting.step_s(8, 1000, 0, 24) == plain
    assert drafting.step_s(8, 1000, 0, 24, 3) == pytest.approx(plain + 3 * (1e-3 + 8e-5))
    assert LINEAR.step_s(8, 1000, 0, 24, 3) == plain, "a profile of before knows of no draft steps"
