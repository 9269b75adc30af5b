"""``governor bench load``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from fake_generate_server import serving
from governor_bench.commands.load import bench_load
from governor_bench.load.measure import window_of
from governor_workloads.served import Served

MIX: dict[str, Any] = {
    "arrivals": {"kind": "poisson", "rate_per_s": 100.0},
    "requests": 12,
    "prompt_tokens": {"kind": "constant", "tokens": 5},
    "output_tokens": {"kind": "constant", "tokens": 4},
    "targets": [{"ttft_slo_s": 60.0}],
}
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,3,{tokens}\n"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(bench_load, arguments)


@pytest.fixture
def mix(tmp_path: Path) -> str:
    path = tmp_path / "mix.json"
    path.write_bytes(msgspec.json.encode(MIX))
    return str(path)


def test_a_mix_is_served_and_reported(mix: str, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    with serving() as server:
        done = run("--url", server.url, "--mix", mix, "--limit", "8", "--json", str(out))
    assert done.exit_code == 0, done.output
    report = msgspec.json.decode(out.read_bytes())
    assert (report["requests"], report["failed"], report["output_tokens"]) == (8, 0, 32)
    assert report["attainment"] == 1.0
    assert "Poisson arrivals" in report["description"]
    assert "first 8 requests" in report["description"]
    assert report["seeds"] == [1]
    assert report["send_lag_p99_s"] >= 0
    assert {"tier", "versions", "machine", "arguments", "seconds"} <= report.keys()


def test_a_trace_is_served(tmp_path: Path) -> None:
    trace, options = tmp_path / "azure.csv", tmp_path / "options.json"
    trace.write_text(AZURE.format(tokens=7))
    options.write_text('{"branching_share": 1.0, "widths": [[3, 1.0]]}')
    with serving() as server:
        done = run(
            *("--url", server.url, "--azure", str(trace), "--trace-options", str(options)),
            *("--sparse", "--warm-up", "0", "--json", "-"),
        )
    assert done.exit_code == 0, done.output
    report = msgspec.json.decode(done.stdout)
    assert (report["branching_requests"], report["output_tokens"]) == (1, 21)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--mix", "{mix}", "--azure", "{mix}"], "exactly one"),
        ([], "exactly one"),
        (["--mix", "{mix}", "--trace-options", "{mix}"], "--trace-options"),
        (["--mix", "absent.json"], "absent.json"),
        (["--azure", "{mix}"], "line 1"),
        (["--mooncake", "{mix}"], "line 1"),
        (["--mix", "{bad}"], "rate_per_s"),
        (["--mix", "{mix}", "--time-scale", "0"], "--time-scale"),
        (["--mix", "{mix}", "--warm-up", "3", "--duration", "2"], "--warm-up"),
        (["--mix", "{mix}", "--url", "localhost:3"], "--url"),
    ],
)
def test_bad_arguments_exit_with_2(
    mix: str, tmp_path: Path, arguments: list[str], said: str
) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text('{"arrivals": {"kind": "poisson", "rate_per_s": -1}}')
    done = run("--url", "http://x", *(item.format(mix=mix, bad=bad) for item in arguments))
    assert done.exit_code == 2
    assert said in done.output


def test_no_server_is_an_error_that_says_so(mix: str) -> None:
    done = run("--url", "http://127.0.0.1:9", "--mix", mix)
    assert done.exit_code == 1
    assert "no server answers" in done.output


def test_the_window_starts_after_the_warm_up() -> None:
    served = [Served(0, 1, None, None, 0.0, 1.0, 5.0, 9)]
    assert window_of(served, 0.0, None) is None
    assert window_of(served, 1.0, 4.0) == (1.0, 4.0)
    start_s, end_s = window_of(served, 2.0, None) or (0.0, 0.0)
    assert start_s == 2.0
    assert end_s > 5.0
    assert end_s == pytest.approx(5.0)
