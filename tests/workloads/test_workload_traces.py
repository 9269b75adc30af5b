"""Recorded traces: what is read, what is added, and what is refused with its line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from governor_workloads.azure import load_azure
from governor_workloads.errors import WorkloadError
from governor_workloads.mooncake import load_mooncake
from governor_workloads.traces import TraceOptions, read_options

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens\r
2023-11-16 23:59:58.5000000,374,44\r
2023-11-16 23:59:59.5000000,396,109\r
2023-11-17 00:00:01.0000000,12,7\r
2023-11-17 00:00:04.0000000,13,8"""

MOONCAKE = """{"timestamp": 1000, "input_length": 1030, "output_length": 5, "hash_ids": [7, 8, 9]}
{"timestamp": 3000, "input_length": 600, "output_length": 6, "hash_ids": [7, 11]}
"""


def options(**fields: Any) -> TraceOptions:
    return TraceOptions.of(fields)


@pytest.fixture
def azure(tmp_path: Path) -> Path:
    path = tmp_path / "azure.csv"
    path.write_bytes(AZURE.encode())
    return path


@pytest.fixture
def mooncake(tmp_path: Path) -> Path:
    path = tmp_path / "mooncake.jsonl"
    path.write_text(MOONCAKE)
    return path


def test_azure_rows_become_requests_of_an_open_loop(azure: Path) -> None:
    workload = load_azure(azure)
    assert [item.arrival_s for item in workload.requests] == pytest.approx([0.0, 1.0, 2.5, 5.5])
    assert [item.prompt_tokens for item in workload.requests] == [374, 396, 12, 13]
    assert [item.output_tokens for item in workload.requests] == [44, 109, 7, 8]
    assert {item.branches for item in workload.requests} == {1}
    assert workload.arrivals == "open"


def test_a_part_of_a_trace_starts_at_zero_and_runs_faster(azure: Path) -> None:
    chosen = options(start_s=1.0, duration_s=4.5, rate_factor=2.0)
    workload = load_azure(azure, chosen)
    assert [item.arrival_s for item in workload.requests] == pytest.approx([0.0, 0.75])
    assert [item.index for item in workload.requests] == [0, 1]
    assert len(load_azure(azure, options(max_requests=1)).requests) == 1
    with pytest.raises(WorkloadError, match="start_s"):
        load_azure(azure, options(start_s=100.0))


def test_what_a_trace_does_not_hold_is_drawn_and_disclosed(azure: Path) -> None:
    chosen = options(
        branching_share=0.5, widths=[[4, 1.0]], targets=[{"tpot_slo_s": 0.05}],
        branch_tokens={"kind": "constant", "tokens": 21},
    )  # fmt: skip
    workload = load_azure(azure, chosen, seed=1)
    assert workload == load_azure(azure, chosen, seed=1)
    branching = [item for item in workload.requests if item.branches == 4]
    assert 0 < len(branching) < 4
    assert {item.output_tokens for item in branching} == {21}
    assert {item.tpot_slo_s for item in workload.requests} == {0.05}
    for part in ("azure.csv", "synthetic", "0.5 of the requests branch", "21 tokens", "seed 1"):
        assert part in workload.description


@pytest.mark.parametrize(
    ("line", "text", "named"),
    [
        (0, "TIME,ContextTokens,GeneratedTokens", "line 1"),
        (2, "yesterday,1,1", "line 3, column TIMESTAMP"),
        (2, "2023-11-16 23:59:59,x,1", "line 3, column ContextTokens"),
        (2, "2023-11-16 23:59:59,1,0", "line 3, column GeneratedTokens"),
        (2, "2023-11-16 23:59:59,1,999999999999999999", "line 3, column GeneratedTokens"),
        (2, "2023-11-16 23:59:59,1", "line 3: expected 3 columns"),
        (3, "2023-11-16 23:00:00,1,1", "request 3: .* sort"),
        (1, "9" * 5000, "line 2: longer"),
    ],
)
def test_a_bad_azure_line_is_named(azure: Path, line: int, text: str, named: str) -> None:
    lines = AZURE.split("\r\n")
    lines[line] = text
    azure.write_text("\n".join(lines))
    with pytest.raises(WorkloadError, match=named):
        load_azure(azure)


def test_reading_stops_where_enough_was_taken(azure: Path) -> None:
    azure.write_text(f"{AZURE}\nbroken")
    assert len(load_azure(azure, options(max_requests=4)).requests) == 4
    assert len(load_azure(azure, options(duration_s=5.0)).requests) == 3
    with pytest.raises(WorkloadError, match="line 6"):
        load_azure(azure)


def test_mooncake_keeps_the_blocks_that_prompts_share(mooncake: Path) -> None:
    workload = load_mooncake(mooncake)
    first, second = workload.requests
    assert (first.arrival_s, second.arrival_s) == (0.0, 2.0)
    assert (first.prompt_tokens, first.output_tokens) == (1030, 5)
    assert (first.prefix_blocks, second.prefix_blocks) == ((7, 8, 9), (7, 11))
    assert workload.prefix_block_tokens == 512


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "line 2"),
        ('{"timestamp": 1, "input_length": 1}', "line 2: .*output_length"),
        ('{"timestamp": 1, "input_length": "1", "output_length": 1}', "line 2: .*input_length"),
        ('{"timestamp": 1, "input_length": 1, "output_length": 1, "x": 1}', "line 2: .*x"),
        (
            '{"timestamp": 1, "input_length": 1, "output_length": 1, "hash_ids": [-1]}',
            "line 2: .*hash_ids",
        ),
    ],
)
def test_a_bad_mooncake_line_is_named(mooncake: Path, text: str, named: str) -> None:
    mooncake.write_text(f"{MOONCAKE.splitlines()[0]}\n{text}\n")
    with pytest.raises(WorkloadError, match=named):
        load_mooncake(mooncake)


def test_files_that_are_no_text_or_not_there_are_named(tmp_path: Path) -> None:
    packed = tmp_path / "packed.csv"
    packed.write_bytes(b"\x1f\x8b\xff\n")
    with pytest.raises(WorkloadError, match=r"packed\.csv, line 1: not UTF-8"):
        load_azure(packed)
    with pytest.raises(WorkloadError, match=r"absent\.csv"):
        load_azure(tmp_path / "absent.csv")


def test_bad_options_are_refused_by_field(tmp_path: Path, azure: Path) -> None:
    with pytest.raises(WorkloadError, match="rate_factor"):
        options(rate_factor=0)
    with pytest.raises(WorkloadError, match="max_requests"):
        load_azure(azure, TraceOptions(max_requests=0))
    path = tmp_path / "options.json"
    path.write_text('{"start": 3}')
    with pytest.raises(WorkloadError, match=r"options\.json: .*start"):
        read_options(path)
    path.write_text('{"start_s": 3}')
    assert read_options(path) == options(start_s=3.0)


@pytest.mark.parametrize(("part", "count"), [("conv", 19_366), ("code", 8_819)])
def test_the_published_trace_is_read_whole(part: str, count: int) -> None:
    folder = os.environ.get("GOVERNOR_TRACES")
    if not folder:
        pytest.skip("GOVERNOR_TRACES, a folder with the Azure trace's CSV files, is not set")
    path = Path(folder) / f"AzureLLMInferenceTrace_{part}.csv"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in GOVERNOR_TRACES")
    requests = load_azure(path).requests
    assert len(requests) == count
    assert 3000 < requests[-1].arrival_s < 3600
