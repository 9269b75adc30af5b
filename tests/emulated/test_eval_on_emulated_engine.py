"""The evaluation's tier E, whole: controller, emulated engine, HTTP, report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from governor_bench.commands.eval import evaluate
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
