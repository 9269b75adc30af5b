"""The bench of decisions asks what an engine would ask."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner
from governor_bench.commands.bench import bench


def test_a_small_bench_reports_every_size(tmp_path: Path) -> None:
    path = tmp_path / "decision.json"
    arguments = ["decision", "--rows", "1,16,64", "--samples", "40", "--json", str(path)]
    result = CliRunner().invoke(bench, arguments)
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    assert [cell["rows"] for cell in report["cells"]] == [1, 16, 64]
    assert all(0 < cell["p50_us"] <= cell["p99_us"] for cell in report["cells"])
    assert report["arguments"]["policy"] == "taper_plus"
