"""The sweep: gentle to others, true to the budget, and clean whatever ends it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from governor_bench.commands.profile import profile
from governor_bench.profiling.engine import ControllerApi, ProfilingFailed
from governor_bench.profiling.point import Point
from governor_bench.profiling.points_file import PointsFile
from governor_profiles import load_profile
from profiled_engine import ProfiledEngine
from profiling_runs import TRUTH, command, run, sweep


@pytest.fixture
def engine() -> Iterator[ProfiledEngine]:
    with ProfiledEngine(TRUTH) as started:
        yield started


def test_a_profile_is_what_the_engine_does_and_a_second_run_adds_to_it(
    engine: ProfiledEngine, tmp_path: Path
) -> None:
    output = tmp_path / "p.json"
    result = run(engine, output)
    assert result.exit_code == 0, result.output
    assert "governor fit" in result.output
    written = load_profile(output)
    off = []
    for rows in range(1, 17):
        for context in (64, 100, 200, 400):
            if rows * context < 6000:
                found = written.step_s(rows, rows * context)
                off.append(abs(found / TRUTH.step_s(rows, rows * context) - 1))
    assert np.mean(off) < 0.02
    assert written.prefill_token_s == pytest.approx(TRUTH.prefill_token_s, rel=0.02)
    assert (tmp_path / "p.samples.npz").is_file()
    before = points_in(engine, output)
    assert run(engine, output).exit_code == 0
    after = points_in(engine, output)
    assert after[: len(before)] == before
    assert len({point.name for point in after}) == len(after)


def points_in(engine: ProfiledEngine, output: Path) -> list[Point]:
    key = ControllerApi(engine.url).engine("").key
    notes = PointsFile(output.with_name(f"{output.name}.points.jsonl"), key, fresh=False)
    return [item.point for item in notes.measured]


def test_the_policy_is_replaced_and_put_back(engine: ProfiledEngine, tmp_path: Path) -> None:
    engine.policy = "cap:2"
    assert sweep(engine, tmp_path).measured == 4
    assert engine.policies[0] == "eager"
    assert engine.policy == "cap:2"


def test_a_policy_that_someone_else_sets_meanwhile_stays(
    engine: ProfiledEngine, tmp_path: Path
) -> None:
    engine.blocks = True
    running = threading.Thread(target=lambda: _quietly(engine, tmp_path))
    running.start()
    assert engine.serving.wait(30)
    engine.policy, engine.refuses = "off", True
    engine._freed.set()
    running.join(30)
    assert engine.policy == "off"


def _quietly(engine: ProfiledEngine, folder: Path) -> None:
    with pytest.raises(ProfilingFailed):
        sweep(engine, folder)


@pytest.mark.parametrize("left_behind", ["eager", "fixed_draft:4"])
def test_a_policy_left_behind_by_a_killed_run_is_put_back(
    engine: ProfiledEngine, tmp_path: Path, left_behind: str
) -> None:
    key = ControllerApi(engine.url).engine("").key
    PointsFile(tmp_path / "points.jsonl", key, fresh=False).policy_replaced("taper_plus")
    engine.policy = left_behind
    sweep(engine, tmp_path)
    assert engine.policy == "taper_plus"


def test_it_waits_while_others_are_served(engine: ProfiledEngine, tmp_path: Path) -> None:
    engine.others = 3
    seen: list[tuple[int, str]] = []

    def leave() -> None:
        time.sleep(2.0)
        seen.append((len(engine.generated), engine.policy))
        engine.others = 0

    leaving = threading.Thread(target=leave)
    leaving.start()
    outcome = sweep(engine, tmp_path)
    leaving.join()
    assert seen == [(0, "taper_plus")]
    assert outcome.measured == 4
    assert outcome.waited_s > 1.0


def test_a_point_makes_way_for_others(engine: ProfiledEngine, tmp_path: Path) -> None:
    engine.blocks = True

    def come_and_go() -> None:
        assert engine.serving.wait(30)
        engine.others = 4
        while not engine.aborted:
            time.sleep(0.05)
        engine.blocks, engine.others = False, 0

    coming = threading.Thread(target=come_and_go)
    coming.start()
    outcome = sweep(engine, tmp_path)
    coming.join(30)
    assert engine.aborted == set(engine.generated[0]["rid"])
    assert (outcome.measured, outcome.incomplete) == (4, [])


def test_it_gives_up_waiting_when_the_budget_ends(
    engine: ProfiledEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("governor_bench.profiling.run.LARGEST_SHARE", 1.0)
    engine.others = 1
    outcome = sweep(engine, tmp_path, budget_s=3.0)
    assert outcome.measured == 0
    assert not engine.generated
    assert engine.policy == "taper_plus"


def test_a_point_that_hangs_ends_with_the_budget(
    engine: ProfiledEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("governor_bench.profiling.measure.LEAST_PATIENCE_S", 3600.0)
    monkeypatch.setattr("governor_bench.profiling.run.GRACE_S", 0.0)
    engine.blocks = True
    outcome = sweep(engine, tmp_path, budget_s=2.5)
    assert (outcome.measured, outcome.left) == (0, 4)
    assert engine.aborted
    assert engine.policy == "taper_plus"


def test_steps_with_rows_of_others_measure_nothing(engine: ProfiledEngine, tmp_path: Path) -> None:
    """Others that come in the middle: every step has a row too many."""
    run_alone = engine._run

    def with_a_stranger(body: dict[str, list]) -> None:
        stranger = {"input_ids": [[1] * 30], "sampling_params": [{"max_new_tokens": 1000}]}
        both = {name: [*body[name], *stranger[name]] for name in stranger}
        run_alone(both)

    engine._run = with_a_stranger  # type: ignore[method-assign]
    outcome = sweep(engine, tmp_path, points=1)
    assert outcome.measured == 0
    assert outcome.incomplete == [Point("decode", 64, (1,)).name]


def test_no_row_takes_more_than_its_share_of_kv(engine: ProfiledEngine, tmp_path: Path) -> None:
    sweep(engine, tmp_path, points=12)
    assert engine.generated
    for body in engine.generated:
        tokens = [item["max_new_tokens"] for item in body["sampling_params"]]
        need = sum(map(len, body["input_ids"])) + sum(tokens)
        assert need <= 0.85 * TRUTH.kv_tokens


def test_an_engine_of_another_controller_is_told(engine: ProfiledEngine, tmp_path: Path) -> None:
    engine.reports_steps = False
    with pytest.raises(ProfilingFailed, match="--url"):
        sweep(engine, tmp_path)
    assert engine.policy == "taper_plus"


def test_an_engine_that_refuses_ends_the_run(engine: ProfiledEngine, tmp_path: Path) -> None:
    engine.refuses = True
    with pytest.raises(ProfilingFailed, match="HTTP 400"):
        sweep(engine, tmp_path)
    assert engine.policy == "taper_plus"


INTERRUPTIBLE = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from controller_service.cli import main; main()"
)
"""A job in the background of a shell, as tests may be, ignores Ctrl-C, and so do its children."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_aborts_its_requests_and_puts_the_policy_back(
    engine: ProfiledEngine, tmp_path: Path, number: signal.Signals
) -> None:
    engine.blocks = True
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", INTERRUPTIBLE, "profile"),
            *command(engine, tmp_path / "p.json"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert engine.serving.wait(60)
        assert engine.policy == "eager"
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode != 0
    assert "goes on" in output
    assert engine.aborted == {rid for body in engine.generated for rid in body["rid"]}
    assert engine.policy == "taper_plus"


# -- what the command refuses --------------------------------------------------------------------


def test_a_controller_without_the_engine_is_told(engine: ProfiledEngine, tmp_path: Path) -> None:
    result = run(engine, tmp_path / "p.json", "--engine", "nobody")
    assert result.exit_code != 0
    assert "engine-dp0" in result.output
    engine.engines = []
    assert "GOVERNOR_ENDPOINT" in run(engine, tmp_path / "p.json").output


def test_with_several_engines_one_must_be_named(engine: ProfiledEngine, tmp_path: Path) -> None:
    engine.engines = [engine.facts, {**engine.facts, "engine_id": "other-dp0"}]
    result = run(engine, tmp_path / "p.json")
    assert result.exit_code != 0
    assert "--engine" in result.output


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("--budget", "5", "--budget"),
        ("--budget", "soon", "--budget"),
        ("--url", "localhost:30000", "--url"),
        ("-o", "profile.txt", ".json"),
        ("--samples", "samples.csv", ".npz"),
    ],
)
def test_bad_options_are_named(
    engine: ProfiledEngine, tmp_path: Path, option: str, value: str, named: str
) -> None:
    result = CliRunner().invoke(profile, command(engine, tmp_path / "p.json", option, value))
    assert result.exit_code == 2
    assert named in result.output
    assert not engine.generated


def test_an_engine_without_room_is_told(engine: ProfiledEngine, tmp_path: Path) -> None:
    result = run(engine, tmp_path / "p.json", "--max-context", "100")
    assert result.exit_code == 1
    assert "max_context_tokens" in result.output
