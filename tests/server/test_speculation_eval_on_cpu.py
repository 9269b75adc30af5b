"""``governor eval speculation --tier C``, a quick run on a real engine."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from governor_bench.commands.eval import evaluate
from governor_bench.eval.speculation.cpu.section import section

pytestmark = pytest.mark.engine


def test_policies_are_compared_on_a_real_engine(tmp_path: Path) -> None:
    target = tmp_path / "speculation-C.json"
    arguments = ["--tier", "C", "--quick", "--json", str(target), "--plots", str(tmp_path)]
    done = CliRunner().invoke(evaluate, ["speculation", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    report = msgspec.json.decode(target.read_bytes())
    assert report["token_mismatches"] == 0
    assert report["compared_requests"] > 40
    well, badly = report["cells"]
    for cell in (well, badly):
        # The first step after a switch of the policy may be drafted as the one before said.
        assert 1.0 <= cell["accept_length"]["none"] < 1.05
    assert well["accept_length"]["fixed 3"] > badly["accept_length"]["fixed 3"] > 1.0
    by_name = {one["name"]: one for one in well["figures"]}
    assert by_name["fixed 1"]["length"] == pytest.approx(1.0, abs=0.2), "late orders at the start"
    assert by_name["sglang adaptive"]["length"] > 0.0, "the engine's own rule drafts"
    assert by_name["turbospec"]["draft_tokens_per_row"] > 0.0
    assert all(report[key] > 0.0 for key in ("vs_sglang_adaptive", "vs_batch_table"))
    assert "drafted badly" in section(report)
