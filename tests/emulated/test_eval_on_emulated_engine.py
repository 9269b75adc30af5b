"""The evaluation's tier E, whole: controller, emulated engine, HTTP, report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from governor_bench.commands.eval import evaluate


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
    assert off["emulated"]["parked"] > eager["emulated"]["parked"] == 0
    assert off["emulated"]["rows"] < eager["emulated"]["rows"]
    assert "closed loop" in report["workload"]
