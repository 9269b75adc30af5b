"""``governor profile`` against real SGLang whose true step times are known."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from governor_bench.commands.profile import profile
from governor_bench.processes import workspace
from governor_bench.servers import Controller, EmulatedEngine
from governor_profiles import StepProfile, load_profile

TRUTH = "qwen3-32b-h200"
BUDGET_S = 40
MOST_ROWS = 64
MOST_CONTEXT = 4096
CONNECTS_WITHIN_S = 30


@pytest.mark.engine
def test_a_profile_of_a_real_engine_is_near_the_truth(tmp_path: Path) -> None:
    output = tmp_path / "measured.json"
    with (
        workspace() as folder,
        Controller(folder, policy="cap:2") as controller,
        EmulatedEngine(folder, TRUTH, governor={"ENDPOINT": controller.endpoint}) as engine,
    ):
        controller.wait_ready()
        engine.wait_ready()
        wait_until_connected(controller)
        result = CliRunner().invoke(
            profile,
            [
                *("--url", engine.url, "--controller", controller.url, "-o", str(output)),
                *("--budget", f"{BUDGET_S}s", "--share", "1"),
                *("--max-rows", str(MOST_ROWS), "--max-context", str(MOST_CONTEXT)),
            ],
        )
        assert result.exit_code == 0, result.output
        assert controller.status()["policy"] == "cap:2"
    written, truth = load_profile(output), load_profile(TRUTH)
    assert written.measured
    assert written.kv_tokens == truth.kv_tokens
    assert np.median(errors(written, truth)) < 0.1, result.output
    assert written.prefill_token_s == pytest.approx(truth.prefill_token_s, rel=0.3)


def wait_until_connected(controller: Controller) -> None:
    deadline_s = time.monotonic() + CONNECTS_WITHIN_S
    while not controller.status()["engines"]:
        assert time.monotonic() < deadline_s, "the engine did not connect"
        time.sleep(0.1)


def errors(written: StepProfile, truth: StepProfile) -> list[float]:
    return [
        abs(written.step_s(rows, rows * context) / truth.step_s(rows, rows * context) - 1.0)
        for rows in range(1, MOST_ROWS + 1, 3)
        for context in (64, 200, 800, 2000)
    ]
