"""The bench of decisions asks what an engine would ask."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner
from governor_bench.commands.bench import bench
from governor_bench.made_up import hello_of, snapshot_of
from governor_protos import decode_to_controller, decode_to_engine, encode
from governor_protos.messages import Decision, Snapshot

from controller_service.policies.base import Knob
from controller_service.policies.registry import parse_policy
from controller_service.predictors.registry import make_predictor
from controller_service.session import EngineSession


def test_a_small_bench_reports_every_size(tmp_path: Path) -> None:
    path = tmp_path / "decision.json"
    arguments = ["decision", "--rows", "1,16,64", "--samples", "40", "--json", str(path)]
    result = CliRunner().invoke(bench, arguments)
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    assert [cell["rows"] for cell in report["cells"]] == [1, 16, 64]
    assert all(0 < cell["p50_us"] <= cell["p99_us"] for cell in report["cells"])
    assert report["arguments"]["policy"] == "taper_plus"


def test_an_engine_that_speculates_is_asked_about_under_a_policy_for_drafts(
    tmp_path: Path,
) -> None:
    path = tmp_path / "decision.json"
    policy = "taper_plus+turbospec"
    arguments = ["decision", "--policy", policy, "--rows", "32", "--samples", "40"]
    result = CliRunner().invoke(bench, [*arguments, "--json", str(path)])
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    assert {report["policy"], *(cell["policy"] for cell in report["cells"])} == {policy}


def test_its_snapshots_are_those_of_rows_that_draft_unlike_each_other() -> None:
    """They carry what a session learns from: chances of its own for every row, and drafts that
    are worth their price for some."""
    session = EngineSession(
        hello_of("bench", {Knob.DRAFTS}), make_predictor("corrected-linear"), lease_steps=4
    )
    policy = parse_policy("taper_plus+turbospec")
    for step in range(1, 60):
        snapshot = decode_to_controller(encode(snapshot_of(step, 34, {Knob.DRAFTS})))
        assert isinstance(snapshot, Snapshot)
        decision = decode_to_engine(session.decide(snapshot, policy))
        session.settle(snapshot, step * 0.02)
    assert isinstance(decision, Decision)
    assert decision.draft_length > 0
    assert 0 < decision.draft_budget < 34 * decision.draft_length
    (feedback,) = snapshot.feedback
    assert 0 < feedback.accepted_tokens < feedback.draft_tokens


def test_an_unknown_policy_is_named() -> None:
    result = CliRunner().invoke(bench, ["decision", "--policy", "taper+nothing"])
    assert result.exit_code == 2
    assert "--policy" in result.output
    assert "turbospec" in result.output
