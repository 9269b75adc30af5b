"""A sweep of an engine that speculates: each draft length is set, and the policy comes back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from governor_profiles import load_profile
from profiled_engine import ProfiledEngine
from profiling_runs import TRUTH, run, sweep

LENGTHS = (0, 1, 2, 4)
SPECULATES = msgspec.structs.replace(
    TRUTH, draft_token_s=2e-4, draft_step_s=3e-3, draft_row_s=1e-4, bends=None
)


@pytest.fixture
def engine() -> Iterator[ProfiledEngine]:
    with ProfiledEngine(SPECULATES, draft_lengths=LENGTHS) as started:
        yield started


def test_an_engine_that_speculates_is_measured_at_each_draft_length(
    engine: ProfiledEngine, tmp_path: Path
) -> None:
    output = tmp_path / "p.json"
    result = run(engine, output)
    assert result.exit_code == 0, result.output
    printed = " ".join(result.output.split())
    assert "us a draft step" in printed
    assert "200 us by the engine's account" in printed
    assert {int(name.partition(":")[2]) for name in engine.policies[:-1]} == set(LENGTHS)
    assert engine.policy == "taper_plus"
    written = load_profile(output)
    assert written.draft_step_s == pytest.approx(SPECULATES.draft_step_s, rel=0.03)
    # Where every row drafts alike only their sum shows; the split is shipped profiles'.
    each_s = SPECULATES.draft_token_s + SPECULATES.draft_row_s
    assert written.draft_token_s + written.draft_row_s == pytest.approx(each_s, rel=0.03)
    assert written.draft_token_s == pytest.approx(SPECULATES.row_s, rel=0.1)
    for rows in (1, 5, 16):  # nothing of drafts is left in the rest
        plain_s = SPECULATES.step_s(rows, 100 * rows)
        assert written.step_s(rows, 100 * rows) == pytest.approx(plain_s, rel=0.02)
    with np.load(tmp_path / "p.samples.npz", allow_pickle=False) as stored:
        drafted = stored["draft_tokens"] > 0
        assert drafted.any()
        beyond_s = stored["latency_s"] - [
            SPECULATES.step_s(rows, context, prefill)
            for rows, context, prefill in zip(
                stored["rows"], stored["context_tokens"], stored["prefill_tokens"], strict=True
            )
        ]
        per_token_s = beyond_s[drafted] / stored["draft_tokens"][drafted]
        assert per_token_s == pytest.approx(written.draft_token_s, rel=0.1)


def test_a_policy_that_someone_else_sets_while_drafts_are_measured_stays(
    engine: ProfiledEngine, tmp_path: Path
) -> None:
    def intrude() -> None:
        while "fixed_draft:1" not in engine.policies:
            time.sleep(0.01)
        engine.policy = "off"

    intruding = threading.Thread(target=intrude)
    intruding.start()
    outcome = sweep(engine, tmp_path, draft_points_only=True)
    intruding.join(30)
    assert outcome.measured == 0
    assert len(outcome.incomplete) == 1
    assert engine.policy == "off"
    assert engine.aborted >= set(engine.generated[0]["rid"])


def test_an_engine_that_cannot_do_without_drafts_is_refused(
    engine: ProfiledEngine, tmp_path: Path
) -> None:
    engine.facts["draft_lengths"] = [1, 2]
    result = run(engine, tmp_path / "p.json")
    assert result.exit_code == 1
    assert "candidate_steps" in result.output
    engine.facts |= {"draft_lengths": [0, 2], "knobs": ["branches"]}
    assert "knobs" in run(engine, tmp_path / "p.json").output
    assert not engine.generated


def test_a_policy_of_ones_own_that_looks_like_ours_comes_back(
    engine: ProfiledEngine, tmp_path: Path
) -> None:
    engine.policy = "fixed_draft:2"
    assert sweep(engine, tmp_path, draft_points_only=True).measured == 1
    assert engine.policy == "fixed_draft:2"
