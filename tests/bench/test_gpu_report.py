"""The document of a GPU's figures, and profiles that become data."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from governor_bench.commands.gpu import gpu
from governor_bench.gpu.adopt import adopt
from governor_bench.gpu.report import NONE_YET, compose, heading, read_folder, write
from governor_bench.gpu.results import ResultError, StageResult
from governor_bench.gpu.results import write as write_result
from governor_bench.gpu.stages import STAGES
from governor_bench.gpu.target import FORMAT, target_of
from governor_profiles import load_profile
from gpu_samples import ENVELOPE, FIGURES, PROFILE, sample

ROOT = Path(__file__).parents[2]


def test_without_a_gpu_the_document_names_what_is_missing_and_has_no_figure() -> None:
    text = compose([])
    assert NONE_YET in text
    for stage in STAGES:
        assert f"`{stage.name}`" in text
    assert not any(unit in text for unit in (" ms", " us", " %", "tok/s"))


def test_a_sample_says_so_in_its_first_line(tmp_path: Path) -> None:
    text = compose([read_folder(sample(tmp_path))])
    assert text.splitlines()[0].startswith("> **Sample**")
    assert "nothing below was measured on a GPU" in text.splitlines()[0]
    assert "Tier C" in text


def test_every_stage_has_its_section(tmp_path: Path) -> None:
    text = compose([read_folder(sample(tmp_path, "cuda"))])
    assert "Sample" not in text and "Tier G" in text
    for stage in STAGES:
        assert (f"### {heading(stage)}" in text) == (stage.name in FIGURES)
    for figure in ("3 of 128 requests differ", "0.991", "30.0 of 10,000", "1234", "1.020", "90"):
        assert figure in text


def test_what_is_missing_or_failed_stands_in_the_table(tmp_path: Path) -> None:
    folder = sample(tmp_path, "cuda", taper=None)
    failed = StageResult(
        FORMAT, "drafts", target_of("cuda", "32b"), "failed", ENVELOPE, reason="x\nE: a | b"
    )
    write_result(folder / "drafts.json", failed)
    text = compose([read_folder(folder)])
    assert "| `taper` | **missing** |" in text
    assert "| `drafts` | **failed** | 12 | E: a \\| b |" in text
    assert "1234" not in text


def test_a_dry_run_does_not_stand_beside_a_gpu(tmp_path: Path) -> None:
    both = [sample(tmp_path / "dry"), sample(tmp_path / "gpu", "cuda")]
    told = CliRunner().invoke(gpu, ["report", *map(str, both), "-o", str(tmp_path / "x.md")])
    assert told.exit_code == 1
    assert "dry: a dry run on the CPU" in told.output
    assert not (tmp_path / "x.md").exists()


def test_plots_are_drawn_and_linked(tmp_path: Path) -> None:
    write([sample(tmp_path / "one")], tmp_path / "docs/gpu.md")
    text = (tmp_path / "docs/gpu.md").read_text()
    for name in ("steps", "parking", "taper"):
        link = f"plots/gpu/tiny-cpu-{name}.png"
        assert f"]({link})" in text
        assert (tmp_path / "docs" / link).stat().st_size > 1000


def test_the_document_that_comes_along_is_that_of_the_results_that_come_along() -> None:
    folders = sorted(
        path.parent for path in (ROOT / "benchmarks/results/gpu").glob("*/target.json")
    )
    found = [read_folder(folder) for folder in folders]
    text = (ROOT / "docs/results/gpu.md").read_text()
    assert text.partition("## Plots")[0].strip() == compose(found).partition("## Plots")[0].strip()


def test_a_dry_run_becomes_no_profile(tmp_path: Path) -> None:
    command = ["adopt", str(sample(tmp_path / "dry")), "--to", str(tmp_path)]
    told = CliRunner().invoke(gpu, command)
    assert told.exit_code == 1
    assert "dry is a dry run on the CPU (model tiny)" in told.output
    assert not list(tmp_path.glob("*.json"))


def test_a_measured_profile_becomes_data_with_what_drafting_costs(tmp_path: Path) -> None:
    path = adopt(sample(tmp_path / "gpu", "cuda"), tmp_path)
    assert path.name == f"{PROFILE.name}.json"
    profile = load_profile(path)
    assert (profile.fixed_s, profile.measured) == (PROFILE.fixed_s, True)
    assert (profile.draft_token_s, profile.draft_step_s) == pytest.approx((70e-6, 1.5e-3))
    assert "Costs of drafts: STANDALONE" in profile.source


def test_a_profile_without_measured_drafts_keeps_its_own(tmp_path: Path) -> None:
    path = adopt(sample(tmp_path / "gpu", "cuda", drafts=None), tmp_path)
    assert load_profile(path) == PROFILE


def test_nothing_is_adopted_from_a_folder_without_calibration(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="stage calibration is not done"):
        adopt(sample(tmp_path / "gpu", "cuda", calibration=None), tmp_path)
    derived = msgspec.structs.replace(PROFILE, measured=False)
    folder = sample(tmp_path / "derived", "cuda")
    (folder / "calibration.profile.json").write_bytes(msgspec.json.encode(derived))
    with pytest.raises(ResultError, match="was not measured"):
        adopt(folder, tmp_path)
