"""Whose the host's time is in a trace, and where it waits."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from governor_bench.gpu.host_time import NoSteps, part_of, traced_side
from governor_bench.gpu.results import ResultError
from governor_bench.gpu.traces import Event, read_trace
from hypothesis import given
from hypothesis import strategies as st

SCHEDULER = "sglang/srt/managers/scheduler.py"


def frame(path: str, function: str, ts: float, dur: float, tid: int = 7) -> Event:
    return Event(f"{path}(12): {function}", "python_function", "X", ts, dur, tid, 1)


def one_step(at: float) -> list[Event]:
    """1000 us: schedule 100 with a Governor of 40 inside, launch 500 inside a hook of 560."""
    return [
        frame(SCHEDULER, "event_loop_overlap", at, 1000),
        frame(SCHEDULER, "get_next_batch_to_run", at + 10, 100),
        frame("sglang_patch/seams/decoding.py", "around_update_running_batch", at + 20, 40),
        frame("sglang/srt/managers/schedule_batch.py", "filter_batch", at + 25, 30),
        frame("sglang_patch/seams/running.py", "around_run_batch", at + 200, 560),
        frame(SCHEDULER, "run_batch", at + 210, 500),
        frame("torch/nn/modules/module.py", "_call_impl", at + 220, 300),
        Event("cudaEventSynchronize", "cuda_runtime", "X", at + 900, 50, 7, 1),
        Event("aten::mm", "cpu_op", "X", at + 230, 10, 7, 1),
    ]


def test_time_belongs_to_the_part_that_it_is_spent_in() -> None:
    other_thread = [frame("threading.py", "run", 0, 50_000, tid=8)]
    side = traced_side("governed", "eager", [*one_step(0), *one_step(2000), *other_thread])
    assert side.steps == 2
    assert side.host_us == pytest.approx(
        {
            "sglang: loop": 1000 - 100 - 560,
            "sglang: schedule": 60,
            "governor: decoding": 40,  # what it has SGLang do for it included
            "governor: running": 60,
            "sglang: launch": 500,  # whatever hook is around it
        }
    )
    assert side.governor_us == pytest.approx(100)
    assert side.waits == {"cudaEventSynchronize": 1.0}
    assert side.waits_per_step == 1.0


def test_a_frame_that_rounding_lets_outlast_its_caller_is_cut() -> None:
    events = [frame(SCHEDULER, "run_batch", 0, 100), frame("sglang_patch/link.py", "poll", 90, 11)]
    side = traced_side("governed", "eager", events)
    assert side.host_us == pytest.approx({"sglang: launch": 90, "governor: link": 10})


@given(
    st.lists(
        st.tuples(
            st.integers(0, 500), st.integers(0, 500), st.sampled_from(["a.py", "sglang_patch/b.py"])
        ),
        max_size=30,
    )
)
def test_no_time_is_counted_twice(frames: list[tuple[int, int, str]]) -> None:
    events = [frame(SCHEDULER, "run_batch", 0, 1000)]
    events += [frame(path, "f", ts, dur) for ts, dur, path in frames]
    side = traced_side("governed", "eager", events)
    assert sum(side.host_us.values()) == pytest.approx(1000)


def test_a_trace_without_steps_says_so() -> None:
    with pytest.raises(NoSteps, match="no run_batch; was it taken with stacks"):
        traced_side("stock", "stock", [frame("a.py", "run_batch", 0, 1)])


@pytest.mark.parametrize(
    ("name", "part"),
    [
        (f"/x/site-packages/{SCHEDULER}(1): run_batch", "sglang: launch"),
        ("x/sglang_patch/seams/running.py(9): run_batch", "governor: running"),
        ("x/governor_protos/codec.py(9): encode", "governor: codec"),
        ("<built-in method run_batch>", None),
        ("torch/x.py(1): run_batch", None),
    ],
)
def test_parts_by_frame(name: str, part: str | None) -> None:
    assert part_of(name) == part


def packed(path: Path, content: Any) -> Path:
    path.write_bytes(gzip.compress(json.dumps(content).encode()))
    return path


def test_a_trace_is_read_for_what_has_a_duration(tmp_path: Path) -> None:
    event = {
        "ph": "X",
        "cat": "cpu_op",
        "name": "aten::mm",
        "pid": 1,
        "tid": 7,
        "ts": 1.5,
        "dur": 2,
    }
    mark = {
        "ph": "i",
        "s": "t",
        "name": "mark",
        "pid": 1,
        "tid": "Spans",
        "ts": 1,
        "args": {"a": 1},
    }
    path = packed(tmp_path / "t.gz", {"schemaVersion": 1, "traceEvents": [event, mark]})
    assert read_trace(path) == [Event("aten::mm", "cpu_op", "X", 1.5, 2.0, 7, 1)]


def test_a_trace_that_is_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ResultError, match=r"t\.gz: no trace of torch's profiler"):
        read_trace(packed(tmp_path / "t.gz", {"events": []}))
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"{}" * 9999)[:20])
    with pytest.raises(ResultError, match=r"cut\.gz: no readable"):
        read_trace(tmp_path / "cut.gz")
    monkeypatch.setattr("governor_bench.gpu.traces.MAX_BYTES", 100)
    with pytest.raises(ResultError, match=r"big\.gz: larger than 100 bytes unpacked"):
        read_trace(packed(tmp_path / "big.gz", {"traceEvents": ["x" * 200]}))
