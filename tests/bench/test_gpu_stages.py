"""Stages of ``governor gpu run``: what is kept, what is left, what fails."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from governor_bench.commands.gpu import gpu
from governor_bench.gpu import pairs
from governor_bench.gpu.archive import pack, unpack
from governor_bench.gpu.figures import Figures, PolicyCell, Taper
from governor_bench.gpu.results import ResultError, claim, read_result
from governor_bench.gpu.rig import Rig
from governor_bench.gpu.run import Line, run_stages
from governor_bench.gpu.stage import Context, Needs, Skipped, Stage
from governor_bench.gpu.stages import STAGES, drafts, parking, taper
from governor_bench.gpu.target import SIZES, WrongTarget, sizes_of, target_of
from gpu_samples import FIGURES, POLICY_CELL, sample
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
TINY = target_of("cpu", "tiny")


class Asked:
    """Stages that note when they were run, on a rig that starts nothing."""

    def __init__(self, folder: Path) -> None:
        self.ran: list[str] = []
        claim(folder, TINY)
        rig = Rig(TINY, folder, folder, folder / "logs", lambda text: None)
        self.context = Context(TINY, sizes_of(TINY), folder, rig, lambda text: None)

    def stage(self, name: str, *, raises: Exception | None = None, work_s: float = 1.0) -> Stage:
        def run(context: Context) -> Figures:
            self.ran.append(name)
            if raises is not None:
                raise raises
            return FIGURES[name]

        return Stage(name, name, lambda sizes: work_s, (), run)

    def run(self, *stages: Stage, budget_s: float = 60.0, resume: bool = True) -> list[Line]:
        return run_stages(stages, self.context, budget_s, resume=resume, arguments={})


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    return Asked(tmp_path)


def test_a_finished_stage_is_kept_and_a_failed_one_tried_again(asked: Asked) -> None:
    failing = asked.stage("parking", raises=RuntimeError("the device fell over"))
    first = asked.run(asked.stage("lateness"), failing, asked.stage("taper"))
    assert [line.became for line in first] == ["done", "failed", "done"]
    assert first[1].why == "RuntimeError: the device fell over"
    second = asked.run(asked.stage("lateness"), asked.stage("parking"), asked.stage("taper"))
    assert [line.became for line in second] == ["kept", "done", "kept"]
    assert asked.ran == ["lateness", "parking", "taper", "parking"]


def test_a_failure_leaves_its_error_and_the_ends_of_logs(asked: Asked) -> None:
    logs = asked.context.folder / "logs"
    logs.mkdir()
    (logs / "governed.log").write_text("x" * 9000 + "\nCUDA out of memory")
    asked.run(asked.stage("parking", raises=RuntimeError("no answer")))
    result = read_result(asked.context.folder, "parking")
    assert result is not None
    assert result.status == "failed" and result.figures is None
    assert "no answer" in result.reason and "Traceback" in result.reason
    assert result.logs["governed.log"].endswith("CUDA out of memory")
    assert len(result.logs["governed.log"]) == 6000


def test_fresh_measures_again(asked: Asked) -> None:
    asked.run(asked.stage("taper"))
    (asked.context.folder / "taper.cells.json").write_text("[]")
    assert asked.run(asked.stage("taper"), resume=False)[0].became == "done"
    assert asked.ran == ["taper", "taper"]
    assert not (asked.context.folder / "taper.cells.json").exists()


def test_what_means_nothing_here_is_skipped_for_good_and_what_waits_is_not(asked: Asked) -> None:
    stages = [
        asked.stage("trace", raises=Skipped("there is no stream")),
        asked.stage("emulation", raises=Needs("stage taper must be done first")),
    ]
    assert [line.became for line in asked.run(*stages)] == ["skipped", "waits"]
    assert read_result(asked.context.folder, "emulation") is None
    assert [line.became for line in asked.run(*stages)] == ["kept", "waits"]


def test_a_stage_for_which_there_is_no_time_is_left_and_a_shorter_one_runs(asked: Asked) -> None:
    lines = asked.run(
        asked.stage("taper", work_s=500.0), asked.stage("lateness", work_s=5.0), budget_s=60.0
    )
    assert [line.became for line in lines] == ["no time", "done"]
    assert read_result(asked.context.folder, "taper") is None
    assert "expected 500 s" in lines[0].why


@given(st.lists(st.floats(0, 300), max_size=8), st.floats(0, 600))
def test_no_stage_begins_that_is_expected_to_outlast_the_budget(
    works_s: list[float], budget_s: float
) -> None:
    """With a clock that stages turn on by what they are expected to take."""
    spent = [0.0]

    def stage(name: str, work_s: float) -> Stage:
        def run(context: Context) -> Figures:
            spent[0] += work_s
            return FIGURES[name]

        return Stage(name, name, lambda sizes: work_s, (), run)

    with tempfile.TemporaryDirectory() as folder:
        stages = [stage(name, work_s) for name, work_s in zip(FIGURES, works_s, strict=False)]
        context = Asked(Path(folder)).context
        run_stages(stages, context, budget_s, resume=True, arguments={}, clock=lambda: spent[0])
    assert spent[0] <= budget_s + 1e-6


def test_a_table_that_is_longer_than_a_call_is_finished_by_the_next(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent = [0.0]
    ran: list[tuple[float, str]] = []

    def cell(context: Context, governed: object, policy: str, users: float) -> PolicyCell:
        spent[0] += context.sizes.run_s + taper.BETWEEN_S
        ran.append((users, policy))
        return msgspec.structs.replace(POLICY_CELL, policy=policy, users=users)

    monkeypatch.setattr(taper, "_cell", cell)
    monkeypatch.setattr(Rig, "governed", lambda rig: None)
    each_s = asked.context.sizes.run_s + taper.BETWEEN_S

    def call() -> Line:
        begun_s = spent[0]
        return run_stages(
            [msgspec.structs.replace(taper.STAGE, servers=())],
            asked.context,
            4.5 * each_s,
            resume=True,
            arguments={},
            clock=lambda: spent[0] - begun_s,
        )[0]

    first = call()
    assert first.became == "waits" and "4 of 6 cells are measured" in first.why
    assert call().became == "done"
    assert len(ran) == len(set(ran)) == 6
    result = read_result(asked.context.folder, "taper")
    assert result is not None and isinstance(result.figures, Taper)
    assert [(cell.users, cell.policy) for cell in result.figures.cells] == ran


class _Half(msgspec.Struct, frozen=True):
    side: str
    number: int


@pytest.mark.parametrize("beside", [True, False])
def test_engines_take_turns_where_both_fit_and_follow_each_other_where_not(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, beside: bool
) -> None:
    ran: list[tuple[str, int]] = []

    def half(context: Context, side: pairs.Side, number: int) -> _Half:
        ran.append((side.name, number))
        return _Half(side.name, number)

    def join(context: Context, stock: Any, governed: Any) -> Figures:
        for name, halves in (("stock", stock), ("governed", governed)):
            assert halves == [_Half(name, number) for number in range(3)]
        return FIGURES["overhead"]

    pair = pairs.Pair("overhead", _Half, lambda sizes: 3, half, join)
    engine = SimpleNamespace(url="")
    monkeypatch.setattr(pairs, "flush", lambda engine, url: None)
    monkeypatch.setattr(Rig, "stock", lambda rig: engine)
    monkeypatch.setattr(Rig, "governed", lambda rig: SimpleNamespace(engine=engine, controller=1))
    sizes = msgspec.structs.replace(asked.context.sizes, beside=beside)
    context = asked.context._replace(sizes=sizes)
    s, g = "stock", "governed"
    if beside:
        pairs.compare(pair, context)
        assert ran == [(s, 0), (g, 0), (g, 1), (s, 1), (s, 2), (g, 2)]
        return
    with pytest.raises(Needs, match="stage stock must be done first"):
        pairs.compare(pair, context)
    assert pairs.stock_halves([pair], context).files == ("stock-overhead.json",)
    pairs.compare(pair, context)
    assert ran == [(name, number) for name in (s, g) for number in range(3)]


def test_starts_of_servers_count_until_they_run() -> None:
    sizes = SIZES["32b"]
    stage = next(stage for stage in STAGES if stage.name == "lateness")
    cold, warm = stage.expected_s(sizes), stage.expected_s(sizes, frozenset({"governed"}))
    assert cold - warm == sizes.start_s


def test_a_folder_belongs_to_one_target(tmp_path: Path) -> None:
    claim(tmp_path, TINY)
    with pytest.raises(ResultError, match=r"model tiny on cpu.*not of model 32b on cuda.*--out"):
        claim(tmp_path, target_of("cuda", "32b"))
    with pytest.raises(ResultError, match="not of model tiny on cpu with --x"):
        claim(tmp_path, target_of("cpu", "tiny", ("--x",)))


@pytest.mark.parametrize(("device", "model"), [("cpu", "32b"), ("cuda", "tiny")])
def test_a_device_and_a_model_that_do_not_go_together(device: Any, model: Any) -> None:
    with pytest.raises(WrongTarget, match=f"--model {model} --device {device}"):
        target_of(device, model)


@pytest.mark.parametrize("stage", list(FIGURES))
def test_results_are_read_as_they_were_written(tmp_path: Path, stage: str) -> None:
    result = read_result(sample(tmp_path), stage)
    assert result is not None and result.figures == FIGURES[stage]


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda text: text[:-40], "taper.json"),
        (lambda text: text.replace('"slo_ms"', '"slo"'), "slo"),
        (lambda text: text.replace('"attainment": 0.95', '"attainment": "high"'), "attainment"),
        (lambda text: text.replace('"stage": "taper"', '"stage": "other"', 1), "taper.json"),
        (lambda text: text.replace('"status": "done"', '"status": "failed"'), "figures"),
    ],
)
def test_a_damaged_result_is_named(tmp_path: Path, damage: Any, named: str) -> None:
    path = sample(tmp_path) / "taper.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(ResultError, match=named) as told:
        read_result(tmp_path, "taper")
    assert "measure it again" in str(told.value)


def test_a_result_of_another_target_is_refused(tmp_path: Path) -> None:
    sample(tmp_path / "cpu")
    sample(tmp_path / "gpu", "cuda")
    (tmp_path / "cpu/taper.json").replace(tmp_path / "gpu/taper.json")
    with pytest.raises(ResultError, match=r"taper\.json.*target"):
        read_result(tmp_path / "gpu", "taper")


def test_an_archive_restores_what_is_not_there(tmp_path: Path) -> None:
    folder = sample(tmp_path / "one")
    (folder / "traces").mkdir()
    (folder / "traces/long.gz").write_bytes(bytes(13 << 20))
    assert pack(folder, tmp_path / "a.tar.gz") == ["traces/long.gz"]
    there = tmp_path / "two"
    there.mkdir()
    (there / "taper.json").write_text("mine")
    unpack(tmp_path / "a.tar.gz", there)
    assert (there / "taper.json").read_text() == "mine"
    assert (there / "target.json").read_bytes() == (folder / "target.json").read_bytes()
    assert not (there / "traces").exists()


def test_an_archive_reaches_nothing_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "evil").write_text("x")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "evil", "../outside")
    with pytest.raises(ResultError, match=r"a\.tar\.gz"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "into")
    assert not (tmp_path / "outside").exists()


def test_an_unknown_stage_is_named(tmp_path: Path) -> None:
    told = CliRunner().invoke(
        gpu,
        ["run", "--model", "tiny", "--device", "cpu", "--out", str(tmp_path), "--stages", "tapr"],
    )
    assert told.exit_code == 2
    assert "no stage tapr" in told.output and "taper" in told.output


def test_the_command_keeps_what_a_sample_holds(tmp_path: Path) -> None:
    sample(tmp_path)
    command = ["run", "--model", "tiny", "--device", "cpu", "--out", str(tmp_path), "--json", "-"]
    told = CliRunner().invoke(gpu, [*command, "--stages", ",".join(FIGURES)])
    assert told.exit_code == 0, told.output
    report = msgspec.json.decode(told.output[told.output.index("{") :])
    assert {line["became"] for line in report["stages"]} == {"kept"}
    assert report["tier"] == "C"


def test_cost_of_parking_is_that_of_steps_of_equal_rows() -> None:
    def step(rows: int, parked: int, us: float) -> dict[str, Any]:
        return {"rows": rows, "parked_rows": parked, "latency_s": us / 1e6}

    plain = [step(16, 0, 1000.0)] * 10 + [step(15, 0, 1.0)] * 50
    beside = [step(16, 16, 1080.0)] * 10 + [step(32, 0, 9000.0)] * 50
    cell = parking.parking_cell(32, plain, beside)
    assert cell is not None
    assert (cell.advancing, cell.parked, cell.steps) == (16, 16, 10)
    assert cell.cost_us == pytest.approx(80.0)
    assert parking.parking_cell(32, plain, beside[:4]) is None


def test_a_switch_costs_what_its_first_step_takes_beyond_the_next() -> None:
    def steps(rows: int, length: int, *us: float) -> list[dict[str, Any]]:
        return [
            {
                "rows": rows,
                "draft_length": length,
                "latency_s": value / 1e6,
                "accepted_tokens": 2 * rows,
            }
            for value in us
        ]

    seen = [
        *steps(4, 1, 500, 100, 100, 100),  # the batch has just come together
        *steps(4, 3, 260, 200, 200, 200),
        *steps(4, 1, 130, 100, 100, 100),
        *steps(4, 3, 999, 200),  # too short to tell
        *steps(2, 3, 190, 150, 150),  # rows have left
    ]
    assert drafts.switch_costs_us(seen, 4) == pytest.approx([60.0, 30.0])
    assert drafts.accepted_a_row(seen, 3) == pytest.approx(3.0)


def test_a_checkout_is_placed_without_an_installer(tmp_path: Path) -> None:
    script = ROOT / "benchmarks/gpu/place.py"
    subprocess.run([sys.executable, script, tmp_path], check=True)
    found = next(iter(metadata.distributions(path=[str(tmp_path)])))
    assert {point.group for point in found.entry_points} >= {
        "sglang.srt.plugins",
        "sglang.srt.platforms",
        "governor.commands",
    }
    assert (tmp_path / "sglang_patch/plugin.py").is_file()
    assert (tmp_path / "governor_bench/gpu/run.py").is_file()
    assert not (tmp_path / "kernels").exists()


def test_the_bundles_pins_are_those_of_the_requirements() -> None:
    script = (ROOT / "benchmarks/gpu/make_bundle.sh").read_text()
    assert "://" not in script and "index" not in script.partition("NAMES=")[2]
    names = script.partition('NAMES="')[2].partition('"')[0].split()
    pinned = {
        line.partition("==")[0] for line in (ROOT / "requirements/dev.txt").read_text().splitlines()
    }
    assert len(names) > 30 and set(names) <= pinned


def test_a_result_with_figures_is_a_done_one(tmp_path: Path) -> None:
    folder = sample(tmp_path)
    result = read_result(folder, "taper")
    assert result is not None
    with pytest.raises(ValueError, match="figures belong to a stage that is done"):
        msgspec.structs.replace(result, status="skipped")
