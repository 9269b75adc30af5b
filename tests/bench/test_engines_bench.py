"""The bench of many engines asks as they would, and counts what came too late."""

from __future__ import annotations

import json
import math
from pathlib import Path

import msgspec
from click.testing import CliRunner
from governor_bench.commands.bench import bench
from governor_bench.engines.frames import FIRST_STEP, StepFrames
from governor_bench.engines.generator import Answers, Load
from governor_bench.engines.measure import cell_of, most_within_aim
from governor_protos import decode_to_controller
from governor_protos.columns import unpack
from governor_protos.messages import Role, Snapshot
from hypothesis import given
from hypothesis import strategies as st

FRAMES = StepFrames(16, 5)
LOAD = Load([], [], 4, 16, 50.0, 2.0, 1.0, 0)


@given(st.integers(FIRST_STEP, (1 << 32) - 1), st.integers(0, 1000))
def test_a_frame_asks_about_its_step_and_reports_the_one_before(step: int, offset: int) -> None:
    snapshot = decode_to_controller(bytes(FRAMES.frame(step, offset)))
    assert isinstance(snapshot, Snapshot)
    assert snapshot.for_step == step
    assert [feedback.step for feedback in snapshot.feedback] == [step - 1]
    assert len(snapshot.rows) == 16
    assert Role.OPPORTUNISTIC in unpack("B", snapshot.rows.role)


def answers_of(*, asked: int, latencies_ms: list[float], on_time: int) -> Answers:
    return Answers(asked, len(latencies_ms), on_time, 0, latencies_ms, [0.1], 2.0, 0.5, 0.25, 3.0)


def test_what_was_never_answered_is_late() -> None:
    cell = cell_of(LOAD, answers_of(asked=100, latencies_ms=[1.0] * 97, on_time=96))
    assert math.isclose(cell["late_share"], 0.04)
    assert not cell["within_aim"]
    assert cell["asked_per_s"] == 50.0
    assert cell["answered_per_s"] == 48.5
    assert (cell["controller_cpu"], cell["generator_cpu"], cell["others_cpu"]) == (
        0.25,
        0.125,
        1.125,
    )


def test_no_answer_at_all_is_not_within_the_aim() -> None:
    cell = cell_of(LOAD, answers_of(asked=100, latencies_ms=[], on_time=0))
    assert cell["late_share"] == 1.0
    assert not cell["within_aim"]
    assert json.loads(msgspec.json.encode(cell))["p99_ms"] is None


def test_one_number_of_engines_that_misses_the_aim_ends_the_range() -> None:
    cells = [
        {"engines": engines, "within_aim": within}
        for engines, within in [(16, True), (1, True), (64, True), (32, False)]
    ]
    assert most_within_aim(cells) == 16
    assert most_within_aim(cells[3:]) == 0


def test_a_short_bench_asks_two_controllers_for_four_engines(tmp_path: Path) -> None:
    path = tmp_path / "engines.json"
    arguments = ["engines", "--engines", "4", "--rows", "16", "--seconds", "1", "--warm-up", "0.5"]
    result = CliRunner().invoke(bench, [*arguments, "--controllers", "2", "--json", str(path)])
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    (cell,) = report["cells"]
    assert 190 <= cell["asked"] <= 210  # four engines, a second, 49 to 51 steps each
    assert 0 < cell["answered"] <= cell["asked"]
    assert cell["unusable"] == 0
    assert 0 < cell["p50_ms"] <= cell["p99_ms"] <= cell["max_ms"]


def test_numbers_of_engines_that_no_controller_serves_are_refused() -> None:
    for engines in ("0", "257", "many", ""):
        result = CliRunner().invoke(bench, ["engines", "--engines", engines])
        assert result.exit_code == 2
        assert "--engines" in result.output
