"""``governor simulate``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from governor_bench.commands.simulate import simulate
from governor_profiles import load_profile
from governor_workloads.report import LoadReport

MIX: dict[str, Any] = {
    "arrivals": {"kind": "poisson", "rate_per_s": 20.0},
    "requests": 20,
    "prompt_tokens": {"kind": "constant", "tokens": 50},
    "output_tokens": {"kind": "constant", "tokens": 30},
    "branching_share": 0.5,
    "widths": [[4, 1.0]],
    "targets": [{"tpot_slo_s": 0.05}],
}
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,30,7\n"
MOONCAKE = '{"timestamp": 0, "input_length": 600, "output_length": 3, "hash_ids": [1, 2]}\n'


def run(*arguments: str) -> Result:
    return CliRunner().invoke(simulate, arguments)


def report_of(path: Path, *arguments: str) -> dict[str, Any]:
    done = run(*arguments, "--json", str(path))
    assert done.exit_code == 0, done.output
    report: dict[str, Any] = msgspec.json.decode(path.read_bytes())
    return report


@pytest.fixture
def mix(tmp_path: Path) -> str:
    path = tmp_path / "mix.json"
    path.write_bytes(msgspec.json.encode(MIX))
    return str(path)


def test_noise_and_a_shift_change_the_times_and_are_told(mix: str, tmp_path: Path) -> None:
    even = report_of(tmp_path / "even.json", "--mix", mix, "--policy", "stock")
    changed = report_of(
        tmp_path / "changed.json",
        *("--mix", mix, "--policy", "stock", "--noise", "0.02", "--shift", "20:2"),
    )
    assert changed["cells"][0]["virtual_s"] > even["cells"][0]["virtual_s"]
    told = [
        (report["arguments"]["noise"], report["arguments"]["shift"]) for report in (even, changed)
    ]
    assert told == [(0.0, None), (0.02, "20:2")]
    refused = run("--mix", mix, "--shift", "20")
    assert refused.exit_code == 2
    assert "--shift" in refused.output
    assert "STEP:FACTOR" in refused.output


def test_chunks_can_be_cut_and_mixed(mix: str, tmp_path: Path) -> None:
    cut = ("--mix", mix, "--policy", "stock", "--chunked-prefill-size", "64")
    apart = report_of(tmp_path / "apart.json", *cut)
    mixed = report_of(tmp_path / "mixed.json", *cut, "--mixed-chunk")
    assert mixed["cells"][0]["tpot_p99_s"] < apart["cells"][0]["tpot_p99_s"]
    told = mixed["arguments"]
    assert (told["chunked_prefill_size"], told["mixed_chunk"]) == (64, True)
    refused = run("--mix", mix, "--policy", "eager", "--mixed-chunk")
    assert refused.exit_code == 2
    assert "--normal-loop" in refused.output


def test_policies_stand_side_by_side(mix: str, tmp_path: Path) -> None:
    report = report_of(tmp_path / "out.json", "--mix", mix, "--policy", "stock", "--policy", "off")
    stock, off = report["cells"]
    assert (stock["policy"], off["policy"]) == ("stock", "off")
    assert set(LoadReport.__struct_fields__) <= set(stock)
    tokens = 30 * (stock["requests"] + 3 * stock["branching_requests"])
    assert stock["requests"] == 20
    assert stock["output_tokens"] == off["output_tokens"] == tokens
    assert stock["outcomes"] == {}
    assert off["outcomes"]["applied"] > 0
    assert off["parked_row_steps"] > 0 == stock["parked_row_steps"]
    assert off["victim_tpot_p50_s"] < stock["victim_tpot_p50_s"]
    assert report["tier"] == "S"
    assert report["times_real_time"] == min(stock["times_real_time"], off["times_real_time"])
    assert report["arguments"]["source"] == "mix.json"
    assert {"seeds", "versions", "machine", "seconds", "description"} <= report.keys()


def test_the_table_has_a_column_for_each_policy(mix: str) -> None:
    done = run("--mix", mix, "--policy", "stock", "--policy", "cap:2", "--policy", "taper")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert "Poisson arrivals" in lines[0]
    assert lines[2].split() == ["stock", "cap:2", "taper"]
    (attainment,) = (line for line in lines if line.startswith("attainment"))
    assert len(re.findall(r"[\d.]+%", attainment)) == 3
    for title in ("goodput", "throughput", "TPOT p99", "TTFT p50", "victim TPOT", "steps", "times"):
        assert any(line.startswith(title) for line in lines), title


def test_standard_output_is_the_report_alone(mix: str) -> None:
    done = run("--mix", mix, "--policy", "stock", "--json", "-")
    assert len(msgspec.json.decode(done.stdout)["cells"]) == 1


def test_traces_are_served_with_what_the_options_add(tmp_path: Path) -> None:
    azure, mooncake, options = (tmp_path / name for name in ("a.csv", "m.jsonl", "o.json"))
    azure.write_text(AZURE)
    mooncake.write_text(MOONCAKE)
    options.write_text('{"branching_share": 1.0, "widths": [[3, 1.0]]}')
    out = tmp_path / "out.json"
    (cell,) = report_of(
        out, "--azure", str(azure), "--trace-options", str(options), "--policy", "eager"
    )["cells"]
    assert (cell["branching_requests"], cell["output_tokens"]) == (1, 21)
    (cell,) = report_of(out, "--mooncake", str(mooncake), "--policy", "eager")["cells"]
    assert (cell["requests"], cell["output_tokens"]) == (1, 3)


def test_a_profile_of_ones_own_memory_rows_and_loop(mix: str, tmp_path: Path) -> None:
    profile = msgspec.structs.replace(load_profile("qwen3-32b-h200"), name="mine", kv_tokens=400)
    path = tmp_path / "mine.json"
    path.write_bytes(msgspec.json.encode(profile))
    common = ("--mix", mix, "--policy", "stock")
    out = tmp_path / "out.json"
    roomy = report_of(out, *common, "--profile", "qwen3-32b-h200", "--profile", str(path))
    assert [cell["profile"] for cell in roomy["cells"]] == ["qwen3-32b-h200", "mine"]
    assert roomy["cells"][0]["mean_rows"] > roomy["cells"][1]["mean_rows"]
    assert str(tmp_path) not in out.read_text()
    (narrow,) = report_of(out, *common, "--max-running-requests", "2")["cells"]
    assert narrow["mean_rows"] <= 2
    (small,) = report_of(out, *common, "--kv-tokens", "90")["cells"]
    assert small["mean_rows"] < roomy["cells"][0]["mean_rows"]
    (normal,) = report_of(out, *common, "--normal-loop")["cells"]
    assert normal["tpot_p50_s"] > roomy["cells"][0]["tpot_p50_s"]


def test_the_run_ends_when_it_is_told(mix: str, tmp_path: Path) -> None:
    arguments = ("--mix", mix, "--policy", "stock", "--seconds", "0.5")
    (cell,) = report_of(tmp_path / "out.json", *arguments)["cells"]
    assert cell["wall_s"] == 0.5
    assert cell["unfinished"] > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "exactly one"),
        (["--mix", "{mix}", "--azure", "{mix}"], "exactly one"),
        (["--mix", "absent.json"], "absent.json"),
        (["--azure", "{mix}"], "line 1"),
        (["--mix", "{mix}", "--profile", "qwen3-32b-h20"], "did you mean"),
        (["--mix", "{mix}", "--profile", "{mix}"], "--profile"),
        (["--mix", "{mix}", "--policy", "tapper"], "'stock'"),
        (["--mix", "{mix}", "--policy", "cap:x"], "--policy"),
        (["--mix", "{mix}", "--predictor", "oracle"], "--predictor"),
        (["--mix", "{mix}", "--kv-tokens", "50"], "kv_tokens"),
        (["--mix", "{mix}", "--seconds", "0"], "--seconds"),
    ],
)
def test_bad_arguments_exit_with_2(mix: str, arguments: list[str], said: str) -> None:
    done = run(*(item.format(mix=mix) for item in arguments))
    assert done.exit_code == 2
    assert said in done.output
