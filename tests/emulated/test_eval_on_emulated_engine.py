"""What runs on tier E, whole: controller, emulated engine, HTTP, report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from governor_bench.commands.eval import evaluate
from governor_bench.demo.run import POLICIES, Settings, run
from governor_bench.demo.workload import DemoLoad
from governor_bench.eval.speculation import plan
from governor_bench.eval.speculation.emulated_section import section


@pytest.mark.engine
def test_the_simulator_is_compared_with_a_real_engine(tmp_path: Path) -> None:
    path = tmp_path / "validation.json"
    result = CliRunner().invoke(evaluate, ["validate", "--quick", "--json", str(path)])
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    assert [cell["policy"] for cell in report["cells"]] == ["eager", "off"]
    eager, off = report["cells"]
    for cell in (eager, off):
        assert cell["emulated"]["goodput_tok_s"] > 0
        assert cell["emulated"]["host"]["steps"] > 100
        assert cell["emulated"]["late_share"] < 0.5
        assert cell["simulated"]["step_ms"] == pytest.approx(cell["emulated"]["step_ms"], rel=0.3)
    # The last decision of the policy before may stand in for a late one of the next.
    assert off["emulated"]["parked"] > 5 * eager["emulated"]["parked"]
    assert off["emulated"]["rows"] < eager["emulated"]["rows"]
    assert "closed loop" in report["workload"]


@pytest.mark.engine
def test_speculation_is_compared_on_a_real_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = ("none", "fixed 3", "sglang adaptive", "turbospec")
    few = tuple(one for one in plan.ON_EMULATED if one.name in wanted)
    monkeypatch.setattr(plan, "ON_EMULATED", few)
    path, plots = tmp_path / "speculation.json", tmp_path / "plots"
    result = CliRunner().invoke(
        evaluate,
        [
            *("speculation", "--tier", "E", "--quick", "--scale", "1"),
            *("--json", str(path), "--plots", str(plots)),
        ],
    )
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    (cell,) = report["cells"]
    found = {one["name"]: one for one in cell["figures"]}
    assert set(found) == {*wanted, "batch table"}
    assert found["none"]["draft_tokens_per_row"] < 0.2 < found["fixed 3"]["accepted_per_row"]
    assert found["fixed 3"]["draft_tokens_per_row"] == pytest.approx(3, abs=0.3)
    assert found["turbospec"]["draft_tokens_per_row"] > 0.5
    assert report["tree_vs_local"] is None
    assert report["worst_cell_vs_best_fixed"] > 0
    (errors,) = report["simulator_error"]["cells"]
    assert set(errors["error_pct"]) == set(found)
    assert (plots / "E" / "grid.png").stat().st_size > 0
    assert "On real SGLang" in section(report)


@pytest.mark.engine
def test_the_demo_plays_and_concludes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = DemoLoad(chats=3, seconds=0.5, waves_s=(0.0,), wave_requests=1, branch_tokens=(8, 10))
    path = tmp_path / "demo.json"
    run(tmp_path, Settings(rounds=1, load=few), str(path))
    report = json.loads(path.read_text())
    assert {turn["policy"] for turn in report["turns"]} == set(POLICIES)
    off, stock, governed = report["policies"]
    for summary in (off, stock, governed):
        assert summary["chats"] >= 3
        assert summary["branching_latency_p50_s"] > 0
    assert off["parked_row_steps"] > 0
    assert stock["parked_row_steps"] == 0
    assert all(turn["load"]["failed"] == 0 for turn in report["turns"])
    assert (tmp_path / "turns.png").stat().st_size > 0
    lines = capsys.readouterr().out.splitlines()
    assert f"verdict: {report['verdict']}" in lines
    stages = [line for line in lines if line.startswith("[")]
    assert len(stages) >= 2 + len(report["turns"])
